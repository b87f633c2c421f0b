"""What users would write by hand: a function that puts an object and posts once. It runs on the emulator."""

import json
import os

import boto3
import requests

s3 = boto3.client("s3")
http = requests.Session()
with open(os.path.join(os.path.dirname(__file__), "video.mp4"), "rb") as file:
    VIDEO = file.read()


def handler(event, context):  # type: ignore[no-untyped-def]
    """Stores the video under the event's key, and tells its URL."""
    s3.put_object(Bucket=event["bucket"], Key=event["key"], Body=VIDEO, ContentType="video/mp4")
    body = json.dumps({"type": "task.completed", "data": {"key": event["key"]}})
    http.post(event["url"], data=body, headers={"webhook-id": event["key"]}, timeout=15)
    print("posted")
