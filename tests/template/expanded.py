"""The template as CloudFormation gets it: expanded by SAM's own translator, offline.

`python tests/template/expanded.py <file>` writes it as JSON, for the linter.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import boto3
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "template.yaml"


def source() -> dict[str, Any]:
    """The template as it is written."""
    parsed: dict[str, Any] = yaml_parse(TEMPLATE.read_text(encoding="utf-8"))
    return parsed


def expanded() -> dict[str, Any]:
    """The template after SAM's transformation; code locations stand for what `sam deploy` would upload."""
    template = source()
    for resource in template["Resources"].values():
        for name in ("CodeUri", "ContentUri"):
            if name in resource.get("Properties", {}):
                resource["Properties"][name] = "s3://uploaded/code.zip"
    # SAM asks for switches that only AWS has, and says at each that it found none.
    logging.getLogger("samtranslator.feature_toggle").setLevel(logging.ERROR)
    # The template names managed policies by their ARN, so there is none to look up. The region decides the partition.
    translator = Translator({}, Parser(), boto_session=boto3.Session(region_name="us-east-1"))
    result: dict[str, Any] = translator.translate(template, {})
    return result


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(expanded(), indent=2), encoding="utf-8")
