"""Builds the real template and deploys it to the emulator."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import requests
from botocore.exceptions import ClientError

from local.emulator import REGION, aws_environment, session
from local.gateway import STAGE, Gateway

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

ROOT = Path(__file__).parent.parent
TEMPLATE = ROOT / "template.yaml"
BUILD = ROOT / ".local" / "build"
STACK_NAME = "renderbell"
KEY_PREFIX = "rbk_"
SAM_LIMIT_S = 600.0
HEALTH_LIMIT_S = 60.0
OUTPUT_TAIL_LINES = 60
RUNTIMES = ("python3.11", "python3.12", "python3.13")
FUNCTIONS_WITH_CONNECTIONS = ("ApiFunctionName", "PollerFunctionName", "NotifierFunctionName")
BUILD_INPUTS = ("template.yaml", "functions", "layers")


class StackError(Exception):
    """The stack could not be built or deployed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A deployed stack and how to reach it; `outputs` are the template's."""

    name: str
    api_url: str
    api_key: str
    aws_endpoint_url: str
    region: str
    table: str
    bucket: str
    outputs: Mapping[str, str]

    @property
    def headers(self) -> dict[str, str]:
        """What a call to the API must carry."""
        return {"x-api-key": self.api_key}

    def session(self) -> boto3.Session:
        """A boto3 session for it; its clients need `endpoint_url=stack.aws_endpoint_url`."""
        return session()


def python_runtime() -> str:
    """The functions' runtime: the emulator runs them with the interpreter that runs this. Raises `StackError`."""
    runtime = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if runtime not in RUNTIMES:
        raise StackError(f"the local stack needs one of {', '.join(RUNTIMES)}, and this is {runtime}")
    return runtime


def architecture() -> str:
    """This machine's processor architecture in AWS's words; raises `StackError` for one that Lambda does not have."""
    machine = platform.machine().lower()
    known = {"x86_64": "x86_64", "amd64": "x86_64", "arm64": "arm64", "aarch64": "arm64"}
    if machine not in known:
        raise StackError(f"Lambda has no architecture {machine}")
    return known[machine]


def build(directory: Path = BUILD) -> Path:
    """Builds functions and layer unless nothing changed since the last time; returns the built template."""
    with locked(directory):
        return _build(directory)


def _build(directory: Path) -> Path:
    overrides = {"PythonRuntime": python_runtime(), "Architecture": architecture()}
    built, stamp = directory / "out" / "template.yaml", directory / "inputs.sha256"
    inputs = hash_of_inputs(ROOT, overrides)
    if built.exists() and stamp.exists() and stamp.read_text().strip() == inputs:
        return built
    stamp.unlink(missing_ok=True)
    run(
        [
            *_sam("build"),
            "--template-file",
            str(TEMPLATE),
            "--build-dir",
            str(built.parent),
            "--cached",
            "--cache-dir",
            str(directory / "cache"),
            "--parameter-overrides",
            *_overrides(overrides),
        ],
        aws_environment("http://127.0.0.1:9"),  # a build needs no AWS
        directory,  # where SAM keeps the downloaded dependencies
    )
    # Without bytecode every cold start compiles every source; hashes that are not checked survive the zip's times.
    compiled = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(built.parent)]
    run([sys.executable, *compiled], {}, directory)
    stamp.write_text(inputs + "\n")
    return built


def deploy(
    endpoint_url: str,
    gateway: Gateway,
    *,
    name: str = STACK_NAME,
    parameters: Mapping[str, str] | None = None,
    connections: Iterable[Mapping[str, object]] = (),
    build_directory: Path = BUILD,
) -> Stack:
    """Builds and deploys the template to the emulator, as an update if the stack is there; its data stay.

    The API is reached through the gateway, whose address stays though the API's own changes with each of its updates.

    `parameters` override the template's; `connections` are saved first, because functions keep what they read of
    them for a minute. Raises `StackError` with the end of SAM's own words.
    """
    for connection in connections:
        put_connection(endpoint_url, name, connection)
    chosen = {
        "PythonRuntime": python_runtime(),
        "Architecture": architecture(),
        "Stage": STAGE,
        "LogLevel": "INFO",
        "AllowHttpWebhooks": "true",
        "AllowedPrivateCidrs": "127.0.0.0/8",
        "PublicBaseUrl": gateway.url,
        **(parameters or {}),
    }
    with locked(build_directory):  # nobody may build anew while this is uploaded
        built = _build(build_directory)
        run(
            [
                *_sam("deploy"),
                "--template-file",
                str(built),
                "--stack-name",
                name,
                "--region",
                REGION,
                "--resolve-s3",
                "--capabilities",
                "CAPABILITY_IAM",
                "--no-confirm-changeset",
                "--no-fail-on-empty-changeset",
                "--no-progressbar",
                "--parameter-overrides",
                *_overrides(chosen),
            ],
            aws_environment(endpoint_url),
            built.parent,
        )
    stack = describe(endpoint_url, name=name, stage=chosen["Stage"])
    take_every_method(stack)
    gateway.lead_to(stack.api_url)
    stack = replace(stack, api_url=gateway.url)
    _check_health(stack)
    return stack


def describe(endpoint_url: str, *, name: str = STACK_NAME, stage: str = STAGE) -> Stack:
    """The deployed stack, from its outputs; raises `StackError` if there is none."""
    clients = session()
    cloudformation = clients.client("cloudformation", endpoint_url=endpoint_url)
    try:
        found = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    except (ClientError, IndexError) as error:
        raise StackError(f"there is no stack {name} at {endpoint_url}: {error}") from None
    outputs = {one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", [])}
    secrets = clients.client("secretsmanager", endpoint_url=endpoint_url)
    secret = secrets.get_secret_value(SecretId=outputs["FirstKeySecretArn"])["SecretString"]
    return Stack(
        name=name,
        api_url=f"{endpoint_url}/restapis/{outputs['ApiId']}/{stage}/_user_request_",
        api_key=KEY_PREFIX + secret,
        aws_endpoint_url=endpoint_url,
        region=REGION,
        table=outputs["TableName"],
        bucket=outputs["BucketName"],
        outputs=outputs,
    )


def take_every_method(stack: Stack) -> None:
    """Adds what the emulator leaves aside of the API's definition: every path's method `ANY`.

    It leads where the path's routes lead, with the same authorizer.
    """
    api = stack.session().client("apigateway", endpoint_url=stack.aws_endpoint_url)
    api_id = stack.outputs["ApiId"]
    for page in api.get_paginator("get_resources").paginate(restApiId=api_id, embed=["methods"]):
        for resource in page["items"]:
            named = [method for method in resource.get("resourceMethods", {}) if method != "ANY"]
            if not named or "ANY" in resource["resourceMethods"]:
                continue
            known = api.get_method(restApiId=api_id, resourceId=resource["id"], httpMethod=named[0])
            api.put_method(
                restApiId=api_id,
                resourceId=resource["id"],
                httpMethod="ANY",
                authorizationType=known["authorizationType"],
                authorizerId=known.get("authorizerId", ""),
            )
            api.put_integration(
                restApiId=api_id,
                resourceId=resource["id"],
                httpMethod="ANY",
                type="AWS_PROXY",
                integrationHttpMethod="POST",
                uri=known["methodIntegration"]["uri"],
            )


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds the build directory for this process alone; waits for another's turn to end."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def put_connection(endpoint_url: str, stack_name: str, connection: Mapping[str, object]) -> None:
    """Saves a connection where the stack's functions look for it, as an operator would."""
    ssm: SSMClient = session().client("ssm", endpoint_url=endpoint_url)
    ssm.put_parameter(
        Name=f"/{stack_name}/connections/{connection['name']}",
        Value=json.dumps({key: value for key, value in connection.items() if key != "name"}),
        Type="SecureString",
        Overwrite=True,
    )


def allow_what_the_emulator_misjudges(stack: Stack) -> None:
    """Makes a stack work on an emulator that enforces IAM, which errs in two ways; everything else stays enforced.

    It checks `ssm:GetParametersByPath` against `*` whatever the path, and it takes functions' calls for calls without
    TLS, which the bucket's policy denies.
    """
    clients = session()
    clients.client("s3", endpoint_url=stack.aws_endpoint_url).delete_bucket_policy(Bucket=stack.bucket)
    functions = clients.client("lambda", endpoint_url=stack.aws_endpoint_url)
    iam = clients.client("iam", endpoint_url=stack.aws_endpoint_url)
    statement = {"Effect": "Allow", "Action": "ssm:GetParametersByPath", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    for function in FUNCTIONS_WITH_CONNECTIONS:
        role = functions.get_function_configuration(FunctionName=stack.outputs[function])["Role"]
        iam.put_role_policy(
            RoleName=role.rpartition("/")[2], PolicyName="emulator-reads-parameters-by-path", PolicyDocument=document
        )


def _check_health(stack: Stack) -> None:
    """Asks the API once, which also warms it; raises `StackError` with its answer unless that is 200."""
    try:
        with requests.Session() as http:
            http.trust_env = False
            answer = http.get(f"{stack.api_url}/health", timeout=HEALTH_LIMIT_S)
    except requests.RequestException as error:
        raise StackError(f"the deployed API does not answer: {error}") from None
    if answer.status_code != 200:
        raise StackError(f"the deployed API answers {answer.status_code}: {answer.text}")


def hash_of_inputs(root: Path, overrides: Mapping[str, str]) -> str:
    """What a build depends on, in one value: the interpreter, the parameters, and every file that is built."""
    digest = hashlib.sha256(json.dumps([sys.version, sys.executable, dict(overrides)]).encode())
    for start in BUILD_INPUTS:
        path = root / start
        files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
        for file in files:
            if "__pycache__" in file.parts:
                continue
            digest.update(f"{file.relative_to(root)}\0{file.stat().st_size}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _sam(command: str) -> list[str]:
    path = Path(sys.executable).with_name("sam")
    if not path.exists():
        raise StackError(f"{path} does not exist: install the development requirements into this environment")
    return [str(path), command]


def _overrides(parameters: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in parameters.items()]


def run(command: list[str], environment: Mapping[str, str], directory: Path) -> None:
    """Runs a tool in the directory, with this environment's programs first; raises `StackError` with its last words."""
    binaries = str(Path(sys.executable).parent)  # `sam build` takes the interpreter and its pip from PATH
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SAM_"))}
    kept |= {"SAM_CLI_TELEMETRY": "0", "PATH": os.pathsep.join([binaries, kept.get("PATH", os.defpath)])}
    kept |= {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env={**kept, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=SAM_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StackError(f"{Path(command[0]).name} {command[1]} did not end within {SAM_LIMIT_S:.0f} s") from None
    if done.returncode != 0:
        tail = "\n".join(f"  {line}" for line in done.stdout.splitlines()[-OUTPUT_TAIL_LINES:])
        raise StackError(f"{Path(command[0]).name} {command[1]} failed with status {done.returncode}:\n{tail}")
