"""The house rules of the deployment, read from the expanded template.

The emulator drops several of these properties without a word (time to live, recovery, lifecycle, access log, gateway
responses), so nothing but these tests watches them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from renderbell import bootstrap, items, settings
from renderbell.api import openapi_document
from renderbell.api.codes import PROBLEM_CODES
from renderbell.api.problems import Problem
from renderbell.notify import COPY_LIMIT
from renderbell.poll import TICK_S
from renderbell.task import Hint, PollError, Step, Streak, StreakKind, Task
from tests.template.expanded import expanded, source

ROOT = Path(__file__).parents[2]

Resource = Mapping[str, Any]

TEMPLATE = expanded()
RESOURCES: Mapping[str, Resource] = TEMPLATE["Resources"]
FUNCTIONS = ("ApiFunction", "AuthorizerFunction", "PollerFunction", "NotifierFunction")
ASYNCHRONOUS = ("PollerFunction", "NotifierFunction")
ASKING_PROVIDERS = ("ApiFunction", *ASYNCHRONOUS)
SETTINGS: Mapping[str, type[settings.Settings]] = {
    "ApiFunction": settings.ApiSettings,
    "AuthorizerFunction": settings.AuthorizerSettings,
    "PollerFunction": settings.PollerSettings,
    "NotifierFunction": settings.NotifierSettings,
}
KEPT = ("Table", "Bucket", "MasterSecret", "ApiGatewayAccount", "ApiGatewayAccountRole")
MANAGED_POLICIES = {
    # Network interfaces in subnets that only the operator knows; attached only where there is a VPC.
    "ApiFunctionRole": "AWSLambdaVPCAccessExecutionRole",
    "PollerFunctionRole": "AWSLambdaVPCAccessExecutionRole",
    "NotifierFunctionRole": "AWSLambdaVPCAccessExecutionRole",
    # API Gateway checks the account's role for exactly these permissions.
    "ApiGatewayAccountRole": "AmazonAPIGatewayPushToCloudWatchLogs",
}
NOTHING = {"Ref": "AWS::NoValue"}


def of_type(kind: str) -> dict[str, Resource]:
    return {name: resource for name, resource in RESOURCES.items() if resource["Type"] == kind}


def properties(name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = RESOURCES[name]["Properties"]
    return found


def as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def roles_statements() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every statement that a role or a policy grants, under its resource's name."""
    for name, role in of_type("AWS::IAM::Role").items():
        for policy in role["Properties"].get("Policies", []):
            for statement in policy["PolicyDocument"]["Statement"]:
                yield name, statement
    for name, policy in of_type("AWS::IAM::Policy").items():
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
            yield name, statement


def actions_of(role: str) -> set[str]:
    return {action for name, statement in roles_statements() if name == role for action in as_list(statement["Action"])}


ANY = "x-amazon-apigateway-any-method"


def routes() -> dict[tuple[str, str], Mapping[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, operations in properties("Api")["Body"]["paths"].items()
        for method, operation in operations.items()
        if method != ANY
    }


# -- permissions ------------------------------------------------------------------------------------------------------


def test_no_role_is_granted_a_wildcard_action() -> None:
    granted = [(name, action) for name, statement in roles_statements() for action in as_list(statement["Action"])]
    assert len(granted) > len(FUNCTIONS)
    assert [pair for pair in granted if "*" in pair[1]] == []


def test_all_resources_are_granted_for_traces_only_because_traces_have_none() -> None:
    everywhere = [statement for _, statement in roles_statements() if "*" in as_list(statement["Resource"])]
    assert len(everywhere) == len(FUNCTIONS)
    for statement in everywhere:
        assert statement["Action"] == ["xray:PutTraceSegments", "xray:PutTelemetryRecords"]


def test_a_resource_pattern_is_granted_for_objects_in_the_bucket_only() -> None:
    patterns = {
        json.dumps(resource)
        for _, statement in roles_statements()
        for resource in as_list(statement["Resource"])
        if "*" in json.dumps(resource) and resource != "*"
    }
    assert patterns == {'{"Fn::Sub": "${Bucket.Arn}/*"}'}


def test_no_function_may_scan_the_table_and_none_may_administer_anything() -> None:
    granted = set().union(*(actions_of(f"{name}Role") for name in FUNCTIONS))
    assert not {action for action in granted if re.search(r"Scan|PartiQL|Create(?!LogStream)|Update(?!Item)", action)}


def test_every_function_has_a_role_of_its_own() -> None:
    roles = [properties(name)["Role"] for name in FUNCTIONS]
    assert roles == [{"Fn::GetAtt": [f"{name}Role", "Arn"]} for name in FUNCTIONS]


def test_roles_take_no_managed_policy_but_those_with_a_reason() -> None:
    managed = {
        name: json.dumps(role["Properties"]["ManagedPolicyArns"])
        for name, role in of_type("AWS::IAM::Role").items()
        if "ManagedPolicyArns" in role["Properties"]
    }
    assert set(managed) == set(MANAGED_POLICIES)
    for name, text in managed.items():
        assert text.count("arn:") == 1
        assert MANAGED_POLICIES[name] in text


def test_network_rights_are_granted_only_inside_a_vpc() -> None:
    for name in ASKING_PROVIDERS:
        condition, _, otherwise = properties(f"{name}Role")["ManagedPolicyArns"]["Fn::If"]
        assert (condition, otherwise) == ("InVpc", NOTHING)
        assert properties(name)["VpcConfig"]["Fn::If"][0] == "InVpc"


def test_the_authorizer_reads_one_item_and_the_first_key_and_nothing_else() -> None:
    assert actions_of("AuthorizerFunctionRole") == {
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "xray:PutTraceSegments",
        "xray:PutTelemetryRecords",
        "dynamodb:GetItem",
        "secretsmanager:GetSecretValue",
    }


@pytest.mark.parametrize(("index", "reader"), [("due", "PollerFunctionRole"), ("list", "ApiFunctionRole")])
def test_one_function_alone_reads_an_index(index: str, reader: str) -> None:
    resources = {(name, json.dumps(statement["Resource"])) for name, statement in roles_statements()}
    assert {name for name, resource in resources if f"index/{index}" in resource} == {reader}
    assert not {resource for _, resource in resources if "index/" in resource and "index/*" in resource}


def test_the_poller_holds_no_secret_and_touches_no_video() -> None:
    assert not {action for action in actions_of("PollerFunctionRole") if action.startswith(("s3:", "secretsmanager:"))}


def test_only_the_notifier_tells_a_bus_and_only_the_one_that_is_named() -> None:
    (found,) = [
        (name, statement)
        for name, statement in roles_statements()
        if "events" in json.dumps(statement["Action"])  # of EventBridge
    ]
    name, statement = found
    assert RESOURCES[name]["Condition"] == "TellsBus"
    assert properties(name)["Roles"] == [{"Ref": "NotifierFunctionRole"}]
    assert statement["Action"] == "events:PutEvents"
    named = "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:event-bus/${EventBusName}"
    assert statement["Resource"] == {"Fn::If": ["BusIsArn", {"Ref": "EventBusName"}, {"Fn::Sub": named}]}
    assert TEMPLATE["Conditions"]["TellsBus"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "EventBusName"}, ""]}]}


# -- functions --------------------------------------------------------------------------------------------------------


def test_there_are_exactly_the_four_functions() -> None:
    assert set(of_type("AWS::Lambda::Function")) == set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_says_what_it_needs(name: str) -> None:
    function = properties(name)
    assert function["Handler"] == "app.handler"
    assert function["Runtime"] == {"Ref": "PythonRuntime"}
    assert function["Architectures"] == [{"Ref": "Architecture"}]
    assert [RESOURCES[layer["Ref"]]["Type"] for layer in function["Layers"]] == ["AWS::Lambda::LayerVersion"]
    assert function["TracingConfig"] == {"Mode": "Active"}
    assert {"MemorySize", "Timeout", "Description"} <= set(function)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_logs_into_a_group_of_its_own_that_forgets(name: str) -> None:
    group = properties(name)["LoggingConfig"]["LogGroup"]["Ref"]
    assert group == f"{name}Logs"
    assert properties(group)["RetentionInDays"] == {"Ref": "LogRetentionDays"}
    assert [statement["Resource"] for role, statement in roles_statements() if statement.get("Sid") == "Log"].count(
        {"Fn::GetAtt": [group, "Arn"]}
    ) == 1


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_gets_exactly_the_settings_that_it_reads(name: str) -> None:
    variables = set(properties(name)["Environment"]["Variables"])
    powertools = {"POWERTOOLS_SERVICE_NAME", "POWERTOOLS_LOG_LEVEL", "POWERTOOLS_METRICS_NAMESPACE"}
    libraries = powertools | {"PYDANTIC_DISABLE_PLUGINS"}
    assert variables == {field.upper() for field in SETTINGS[name].model_fields} | libraries


def test_no_secret_value_stands_in_the_environment() -> None:
    assert "resolve:" not in json.dumps(TEMPLATE)


def test_time_limits_fit_their_callers() -> None:
    assert properties("ApiFunction")["Timeout"] < 29  # API Gateway gives up then
    assert properties("AuthorizerFunction")["Timeout"] < 29
    assert properties("PollerFunction")["Timeout"] == TICK_S + bootstrap.RESERVE_S
    assert properties("NotifierFunction")["Timeout"] <= 900


@pytest.mark.parametrize("name", ASYNCHRONOUS)
def test_asynchronous_invocations_are_not_retried_age_out_and_tell_of_their_failure(name: str) -> None:
    found = properties(f"{name}EventInvokeConfig")
    assert found["FunctionName"] == {"Ref": name}
    assert found["MaximumRetryAttempts"] == 0
    assert found["MaximumEventAgeInSeconds"] == 60
    destination = found["DestinationConfig"]["OnFailure"]["Destination"]
    assert destination == {"Fn::GetAtt": ["FailureQueue", "Arn"]}
    assert "sqs:SendMessage" in actions_of(f"{name}Role")


def test_every_function_that_another_may_invoke_is_covered_by_that_rule() -> None:
    invoked = {
        resource["Fn::GetAtt"][0]
        for _, statement in roles_statements()
        if "lambda:InvokeFunction" in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    }
    assert invoked == set(ASYNCHRONOUS)


def test_reserved_concurrency_is_left_out_at_zero() -> None:
    reserved = properties("NotifierFunction")["ReservedConcurrentExecutions"]
    assert reserved == {"Fn::If": ["ReservesNotifier", {"Ref": "NotifierConcurrency"}, NOTHING]}


def test_the_schedule_ticks_every_minute_without_a_name_of_its_own_and_never_repeats_a_tick() -> None:
    (schedule,) = of_type("AWS::Scheduler::Schedule").values()
    tick = schedule["Properties"]
    assert "Name" not in tick  # a second stack in the account would collide
    assert tick["ScheduleExpression"] == "rate(1 minute)"
    assert tick.get("State", "ENABLED") == "ENABLED"
    assert tick["Target"]["Arn"] == {"Fn::GetAtt": ["PollerFunction", "Arn"]}
    assert tick["Target"]["RetryPolicy"] == {"MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 60}
    assert tick["Target"]["DeadLetterConfig"]["Arn"] == {"Fn::GetAtt": ["FailureQueue", "Arn"]}


def test_the_layer_is_built_for_the_runtime_that_the_functions_run_on() -> None:
    layer = source()["Resources"]["CoreLayer"]
    assert layer["Metadata"]["BuildMethod"] == {"Ref": "PythonRuntime"}
    assert layer["Metadata"]["BuildArchitecture"] == {"Ref": "Architecture"}


# -- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KEPT)
def test_what_must_outlive_the_stack_is_retained(name: str) -> None:
    assert RESOURCES[name]["DeletionPolicy"] in {"Retain", "RetainExceptOnCreate"}
    assert RESOURCES[name]["UpdateReplacePolicy"] == "Retain"


def test_nothing_carries_a_fixed_name_that_a_second_stack_would_collide_with() -> None:
    naming = (
        "TableName",
        "BucketName",
        "FunctionName",
        "RoleName",
        "QueueName",
        "TopicName",
        "LogGroupName",
        "AlarmName",
    )
    named = [
        (name, key)
        for name, resource in RESOURCES.items()
        for key in naming
        if isinstance(resource.get("Properties", {}).get(key), str)
    ]
    assert named == []


def test_the_table_forgets_recovers_and_is_encrypted() -> None:
    table = properties("Table")
    assert table["TimeToLiveSpecification"] == {"AttributeName": "ttl", "Enabled": True}
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["SSESpecification"] == {"SSEEnabled": True}
    assert table["DeletionProtectionEnabled"] is True
    assert table["BillingMode"] == "PAY_PER_REQUEST"


def test_the_table_has_its_key_and_its_two_sparse_indexes() -> None:
    table = properties("Table")
    types = {one["AttributeName"]: one["AttributeType"] for one in table["AttributeDefinitions"]}
    keys = {index["IndexName"]: index["KeySchema"] for index in table["GlobalSecondaryIndexes"]} | {
        "": table["KeySchema"]
    }
    assert {
        name: [(part["AttributeName"], part["KeyType"], types[part["AttributeName"]]) for part in schema]
        for name, schema in keys.items()
    } == {
        "": [("pk", "HASH", "S"), ("sk", "RANGE", "S")],
        "due": [("slot", "HASH", "N"), ("due_at", "RANGE", "S")],
        "list": [("list_pk", "HASH", "S"), ("list_sk", "RANGE", "S")],
    }


def test_the_due_index_projects_what_polling_reads_and_no_more_than_an_index_may() -> None:
    projections = {index["IndexName"]: index["Projection"] for index in properties("Table")["GlobalSecondaryIndexes"]}
    assert projections["list"] == {"ProjectionType": "KEYS_ONLY"}
    assert projections["due"]["ProjectionType"] == "INCLUDE"
    projected = projections["due"]["NonKeyAttributes"]
    assert len(projected) == len(set(projected)) <= 20

    at = items.parse_time("2026-11-22T08:00:00.000000Z")
    task = Task(
        task_id="tsk_1",
        owner="default",
        connection="capcut",
        provider="capcut-mate",
        provider_task_id="d/1",
        created_at=at,
        expires_at=at,
        step=Step.POLL,
        due_at=at,
        slot=3,
        version=7,
        tells_processing=True,
        streak=Streak(StreakKind.NOT_FOUND, 2, at),
        last_poll_error=PollError("unavailable", "502", at),
        hint=Hint(at, 2),
        progress_known=False,
    )
    seen = {
        name: value for name, value in items.task_attributes(task).items() if name in {*projected, "slot", "due_at"}
    }
    assert items.task_from("tsk_1", seen, progress_known=False) == task


def test_the_bucket_is_private_encrypted_and_its_objects_belong_to_the_account() -> None:
    bucket = properties("Bucket")
    assert bucket["PublicAccessBlockConfiguration"] == {
        "BlockPublicAcls": True,
        "BlockPublicPolicy": True,
        "IgnorePublicAcls": True,
        "RestrictPublicBuckets": True,
    }
    (encryption,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert encryption["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    assert bucket["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}


def test_the_bucket_keeps_no_versions_so_that_what_is_deleted_is_gone() -> None:
    assert "VersioningConfiguration" not in properties("Bucket")


def test_abandoned_uploads_are_always_removed_after_a_day() -> None:
    always = properties("Bucket")["LifecycleConfiguration"]["Rules"][0]
    assert always["Status"] == "Enabled"
    assert always["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert timedelta(days=7) > COPY_LIMIT
    assert "Prefix" not in always
    assert "Filter" not in always


def test_videos_expire_only_where_a_retention_is_set() -> None:
    condition, rule, otherwise = properties("Bucket")["LifecycleConfiguration"]["Rules"][1]["Fn::If"]
    assert (condition, otherwise) == ("ExpiresVideos", NOTHING)
    assert rule["ExpirationInDays"] == {"Ref": "VideoRetentionDays"}
    assert rule["Status"] == "Enabled"
    assert TEMPLATE["Conditions"]["ExpiresVideos"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "VideoRetentionDays"}, 0]}]}


def test_the_bucket_answers_over_tls_only() -> None:
    policy = properties("BucketPolicy")
    assert policy["Bucket"] == {"Ref": "Bucket"}
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert statement["Resource"] == [{"Fn::GetAtt": ["Bucket", "Arn"]}, {"Fn::Sub": "${Bucket.Arn}/*"}]


@pytest.mark.parametrize("name", ["MasterSecret", "FirstKeySecret"])
def test_secrets_are_generated_alphanumeric_on_aws_and_on_the_emulator(name: str) -> None:
    generated = properties(name)["GenerateSecretString"]
    assert generated["PasswordLength"] == 43  # 256 bits
    assert generated["ExcludePunctuation"] is True  # AWS
    assert set(generated["ExcludeCharacters"]) == set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")  # the emulator


def test_the_failure_queue_is_encrypted_and_keeps_messages_for_two_weeks() -> None:
    queue = properties("FailureQueue")
    assert queue["SqsManagedSseEnabled"] is True
    assert queue["MessageRetentionPeriod"] == 14 * 86_400


# -- API --------------------------------------------------------------------------------------------------------------


def test_the_template_routes_exactly_what_the_api_serves() -> None:
    document = json.loads(openapi_document("https://api.example/v1"))
    served = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert set(routes()) == served


def test_only_what_the_api_documents_as_open_needs_no_key() -> None:
    document = json.loads(openapi_document("https://api.example/v1"))
    documented = {
        (method.upper(), path)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if operation.get("security") == []
    }
    opened = {route for route, operation in routes().items() if {"NONE": []} in operation["security"]}
    guarded = {route for route, operation in routes().items() if operation["security"] == [{"ApiKey": []}]}
    signed = {("POST", "/callbacks/{connection}")}
    assert opened == documented == {("GET", "/health"), ("GET", "/openapi.json"), ("GET", "/docs")} | signed
    assert opened | guarded == set(routes())


def test_every_path_is_explicit() -> None:
    assert not [path for _, path in routes() if "+" in path or "*" in path]


def test_what_a_path_does_not_take_is_refused_by_the_api_and_needs_a_key_as_the_path_does() -> None:
    for path, operations in properties("Api")["Body"]["paths"].items():
        (security,) = {json.dumps(operation["security"]) for operation in operations.values()}
        assert ANY in operations, f"{path}: API Gateway itself would answer 403"
        assert operations[ANY]["x-amazon-apigateway-integration"]["uri"], security


def test_the_authorizer_sees_the_request_and_is_asked_at_most_once_a_minute_per_key() -> None:
    scheme = properties("Api")["Body"]["components"]["securitySchemes"]["ApiKey"]["x-amazon-apigateway-authorizer"]
    assert scheme["type"] == "request"
    assert scheme["identitySource"] == "method.request.header.x-api-key"
    assert scheme["authorizerResultTtlInSeconds"] == 60
    assert "AuthorizerFunction" in json.dumps(scheme["authorizerUri"])


def test_the_stage_is_throttled_traced_and_logged() -> None:
    (stage,) = of_type("AWS::ApiGateway::Stage").values()
    assert stage["Properties"]["StageName"] == {"Ref": "Stage"}
    assert stage["Properties"]["TracingEnabled"] is True
    assert stage["Properties"]["MethodSettings"] == [
        {
            "ResourcePath": "/*",
            "HttpMethod": "*",
            "ThrottlingRateLimit": {"Ref": "ApiRateLimit"},
            "ThrottlingBurstLimit": {"Ref": "ApiBurstLimit"},
        }
    ]
    log = stage["Properties"]["AccessLogSetting"]
    assert log["DestinationArn"] == {"Fn::GetAtt": ["AccessLogs", "Arn"]}
    assert properties("AccessLogs")["RetentionInDays"] == {"Ref": "LogRetentionDays"}


def test_the_access_log_is_json_and_never_holds_the_key_a_path_or_a_query() -> None:
    (stage,) = of_type("AWS::ApiGateway::Stage").values()
    line = json.loads(stage["Properties"]["AccessLogSetting"]["Format"])
    assert {"request_id", "method", "route", "status", "latency_ms", "owner", "error"} <= set(line)
    assert not re.search(
        r"apiKey|x-api-key|header|query|context\.path|requestOverride", json.dumps(line), re.IGNORECASE
    )


def test_the_access_log_waits_for_the_account_role_where_the_stack_makes_it() -> None:
    (tag,) = properties("AccessLogs")["Tags"]
    assert tag["Value"]["Fn::If"][:2] == ["CreatesApiGatewayLogRole", {"Ref": "ApiGatewayAccount"}]


def gateway_responses() -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = properties("Api")["Body"]["x-amazon-apigateway-gateway-responses"]
    return found


# Every type of answer that API Gateway has but the two defaults, and the status that we give it.
GATEWAY_STATUSES = {
    "ACCESS_DENIED": 403,
    "API_CONFIGURATION_ERROR": 500,
    "AUTHORIZER_CONFIGURATION_ERROR": 500,
    "AUTHORIZER_FAILURE": 500,
    "BAD_REQUEST_BODY": 400,
    "BAD_REQUEST_PARAMETERS": 400,
    "EXPIRED_TOKEN": 404,
    "INTEGRATION_FAILURE": 504,
    "INTEGRATION_TIMEOUT": 504,
    "INVALID_API_KEY": 403,
    "INVALID_SIGNATURE": 404,
    "MISSING_AUTHENTICATION_TOKEN": 404,
    "QUOTA_EXCEEDED": 429,
    "REQUEST_TOO_LARGE": 413,
    "RESOURCE_NOT_FOUND": 404,
    "THROTTLED": 429,
    "UNAUTHORIZED": 401,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "WAF_FILTERED": 403,
}


def test_whatever_api_gateway_answers_itself_is_said_by_us() -> None:
    statuses = {name: response.get("statusCode") for name, response in gateway_responses().items()}
    defaults = {"DEFAULT_4XX": None, "DEFAULT_5XX": None}
    assert statuses == {name: str(status) for name, status in GATEWAY_STATUSES.items()} | defaults


@pytest.mark.parametrize("name", sorted(gateway_responses()))
def test_a_gateway_answer_is_a_problem_document(name: str) -> None:
    response = gateway_responses()[name]
    assert response["responseParameters"]["gatewayresponse.header.Content-Type"] == "'application/problem+json'"
    (template,) = response["responseTemplates"].values()
    told = json.loads(template)
    status = response.get("statusCode")
    assert str(told.get("status")) == str(status)
    problem = Problem.model_validate({"status": 400, **told}, strict=True, extra="forbid")
    assert problem.code in PROBLEM_CODES
    assert problem.type == "about:blank"
    named = {413: "Content Too Large"}  # in Python's words since 3.13
    assert status is None or problem.title == named.get(int(status), HTTPStatus(int(status)).phrase)


@pytest.mark.parametrize("name", sorted(gateway_responses()))
def test_a_gateway_answer_repeats_nothing_of_the_request(name: str) -> None:
    """API Gateway's own message about a header that it cannot read has the header's value in it."""
    text = json.dumps(gateway_responses()[name])
    assert set(re.findall(r"\$[\w.]+|method\.[\w.]+", text)) <= {"$context.requestId"}


def test_who_sends_too_much_is_told_when_to_come_again() -> None:
    told = {
        name: response["responseParameters"].get("gatewayresponse.header.Retry-After")
        for name, response in gateway_responses().items()
    }
    assert {name for name, value in told.items() if value is not None} == {"THROTTLED", "QUOTA_EXCEEDED"}
    assert all(re.fullmatch(r"'[1-9][0-9]*'", value) for value in told.values() if value is not None)


# -- alarms -----------------------------------------------------------------------------------------------------------


def test_every_alarm_watches_one_metric_because_the_emulator_refuses_others() -> None:
    assert len(of_type("AWS::CloudWatch::Alarm")) >= 7
    assert not [name for name, alarm in of_type("AWS::CloudWatch::Alarm").items() if "Metrics" in alarm["Properties"]]


ONE_OFF = {"CopyFailedAlarm", "DeliveryExhaustedAlarm", "EndpointDisabledAlarm"}  # nothing is well again when it ends


def test_alarms_are_mailed_only_where_an_address_is_given() -> None:
    assert RESOURCES["AlarmTopic"]["Condition"] == "MailsAlarms"
    for name in of_type("AWS::CloudWatch::Alarm"):
        for key in ("AlarmActions", *(["OKActions"] if name not in ONE_OFF else [])):
            assert properties(name)[key] == {"Fn::If": ["MailsAlarms", [{"Ref": "AlarmTopic"}], NOTHING]}, name
        assert properties(name)["AlarmDescription"]


def test_nobody_is_told_that_all_is_well_when_a_single_loss_is_over() -> None:
    assert {name for name in of_type("AWS::CloudWatch::Alarm") if "OKActions" not in properties(name)} == ONE_OFF


def test_an_alarm_sends_its_reader_to_words_that_the_code_logs() -> None:
    code = "".join(file.read_text("utf-8") for file in (ROOT / "layers" / "core" / "renderbell").rglob("*.py"))
    for name in of_type("AWS::CloudWatch::Alarm"):
        text = properties(name)["AlarmDescription"]
        assert len(text) <= 1024, name
        for words in re.findall(r"`([a-z-]+(?: [a-z-]+)+)`", text):
            assert words == "make failures" or f'"{words}"' in code, f"{name}: {words}"
    own = {name for name in of_type("AWS::CloudWatch::Alarm") if properties(name)["Namespace"] == "Renderbell"}
    assert [name for name in own if "Search " not in properties(name)["AlarmDescription"]] == []


def watched(namespace: str, metric: str) -> dict[str, Resource]:
    return {
        alarm["Properties"]["Dimensions"][0]["Value"].get("Ref", ""): alarm["Properties"]
        for alarm in of_type("AWS::CloudWatch::Alarm").values()
        if (alarm["Properties"]["Namespace"], alarm["Properties"]["MetricName"]) == (namespace, metric)
    }


def test_an_error_of_an_asynchronous_function_raises_an_alarm() -> None:
    alarms = watched("AWS/Lambda", "Errors")
    assert set(alarms) == set(ASYNCHRONOUS)
    for alarm in alarms.values():
        assert (alarm["Statistic"], alarm["EvaluationPeriods"]) == ("Sum", 1)
        assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("GreaterThanThreshold", 0)
        assert alarm["TreatMissingData"] == "notBreaching"


def test_the_authorizers_errors_raise_none_because_a_wrong_key_is_one() -> None:
    assert "AuthorizerFunction" not in watched("AWS/Lambda", "Errors")
    (alarm,) = watched("AWS/ApiGateway", "5XXError").values()
    assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("GreaterThanThreshold", 5)
    assert alarm["Dimensions"] == [
        {"Name": "ApiName", "Value": {"Ref": "AWS::StackName"}},
        {"Name": "Stage", "Value": {"Ref": "Stage"}},
    ]
    assert properties("Api")["Name"] == {"Ref": "AWS::StackName"}


def test_no_alarm_counts_the_failure_queue_because_events_that_aged_out_lie_there_too() -> None:
    assert not [name for name in of_type("AWS::CloudWatch::Alarm") if properties(name)["Namespace"] == "AWS/SQS"]


def test_only_lasting_throttling_raises_an_alarm() -> None:
    alarms = watched("AWS/Lambda", "Throttles")
    assert set(alarms) == set(ASYNCHRONOUS)
    assert {(alarm["Period"], alarm["EvaluationPeriods"]) for alarm in alarms.values()} == {(300, 3)}


def test_every_alarm_is_explained_to_the_operator() -> None:
    explained = (ROOT / "docs" / "operations.md").read_text()
    assert [name for name in of_type("AWS::CloudWatch::Alarm") if f"`{name}`" not in explained] == []


def test_a_silent_poller_raises_an_alarm_though_no_data_come() -> None:
    silent = properties("PollerSilentAlarm")
    assert (silent["MetricName"], silent["Statistic"], silent["Period"]) == ("Invocations", "Sum", 300)
    assert (silent["ComparisonOperator"], silent["Threshold"]) == ("LessThanThreshold", 1)
    assert silent["TreatMissingData"] == "breaching"


def test_alarms_on_our_own_metrics_name_the_service_that_writes_them() -> None:
    services = {properties(name)["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"] for name in FUNCTIONS}
    own = [
        properties(name) for name in of_type("AWS::CloudWatch::Alarm") if properties(name)["Namespace"] == "Renderbell"
    ]
    assert {alarm["MetricName"] for alarm in own} == {
        "ProviderAuthError",
        "ProviderProtocolError",
        "DeliveryExhausted",
        "EndpointDisabled",
        "UnreadableItem",
        "UnreadableDelivery",
        "CopyFailed",
        "CleanUpFailed",
        "PollNotKept",
        "PollInterrupted",
    }
    for alarm in own:
        (dimension,) = alarm["Dimensions"]
        assert dimension["Name"] == "service"
        assert dimension["Value"] in services


# -- parameters and outputs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(TEMPLATE["Parameters"]))
def test_every_parameter_is_described_has_a_default_and_is_used(name: str) -> None:
    parameter = TEMPLATE["Parameters"][name]
    assert parameter["Description"].endswith((".", ")."))
    assert "Default" in parameter
    written = source()
    rest = json.dumps({key: written[key] for key in ("Conditions", "Globals", "Resources")})
    assert f'{{"Ref": "{name}"}}' in rest


@pytest.mark.parametrize("name", sorted(TEMPLATE["Parameters"]))
def test_every_parameter_says_what_it_accepts(name: str) -> None:
    parameter = TEMPLATE["Parameters"][name]
    if parameter["Type"] == "Number":
        assert {"MinValue", "MaxValue"} <= set(parameter) or "AllowedValues" in parameter
    if parameter["Type"] == "String":
        assert "AllowedValues" in parameter or "AllowedPattern" in parameter


def test_every_parameter_has_its_place_in_the_console() -> None:
    groups = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(TEMPLATE["Parameters"])


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("AllowedPrivateCidrs", ["", "10.0.0.0/8", "10.0.0.0/8,fd00::/8"], ["10.0.0.1", "10.0.0.0/8, 1.1.1.0/24"]),
        ("PublicBaseUrl", ["", "https://renders.example.com", "http://127.0.0.1:4566/a/v1/"], ["renders.example.com"]),
        (
            "EventBusName",
            ["", "default", "my.bus/1", "arn:aws-cn:events:cn-north-1:123456789012:event-bus/studio"],
            [
                "a bus",
                "arn:aws:events:eu-central-1:1:event-bus/x",
                "arn:aws:sqs:eu-central-1:123456789012:x",
                "x" * 257,
            ],
        ),
        ("AlarmEmail", ["", "ops@example.com"], ["ops", "a b@example.com"]),
        ("Stage", ["v1", "prod_2"], ["", "v1/x", "v-1"]),
    ],
)
def test_parameters_accept_the_good_and_refuse_the_bad(name: str, good: list[str], bad: list[str]) -> None:
    pattern = re.compile(TEMPLATE["Parameters"][name]["AllowedPattern"])
    assert all(pattern.fullmatch(value) for value in good)
    assert not any(pattern.fullmatch(value) for value in bad)


def test_the_outputs_that_operators_and_tools_rely_on_are_there() -> None:
    assert set(TEMPLATE["Outputs"]) == {
        "ApiUrl",
        "ApiId",
        "FirstKeySecretArn",
        "MasterSecretArn",
        "ConnectionsPath",
        "TableName",
        "BucketName",
        "FailureQueueUrl",
        "ApiFunctionName",
        "PollerFunctionName",
        "NotifierFunctionName",
    }
