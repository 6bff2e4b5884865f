"""The CloudFormation template: what it makes, and who may do what with it.

Who may do what is read from the template's policies by a small evaluator, which knows of them what
this template uses, and fails on anything else.
"""

import ast
import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest
from cfnlint.api import lint_file
from cfnlint.decode import cfn_yaml
from dagster_aws import athena
from dagster_aws.s3 import compute_log_manager

from stedi_assets.catalog import glue
from stedi_assets.job_clients import PIPES
from stedi_assets.lake import ERASURES, EXCHANGE, RECONCILED, REPORTS, SNAPSHOTS, s3
from stedi_assets.tables import TABLES, Source, Table, Zone

pytestmark = pytest.mark.long

TEMPLATE = Path(__file__).parents[2] / "deploy" / "aws" / "stack.yaml"
ACCOUNT, REGION = "123456789012", "us-east-1"
GLUE = f"arn:aws:glue:{REGION}:{ACCOUNT}"
PREFIX = "lake"

CURATED = [table for table in TABLES.values() if table.zone is Zone.CURATED]
OTHERS = [table for table in TABLES.values() if table.zone is not Zone.CURATED]


@cache
def written() -> dict[str, Any]:
    """The template as it stands in the file."""
    found: dict[str, Any] = json.loads(json.dumps(cfn_yaml.load(str(TEMPLATE))))
    return found


class Template:
    """The template, with values in the place of what refers to others.

    Args:
        parameters: that differ from their defaults.
        names: of resources that have a name from elsewhere; of the others it is made up.
    """

    def __init__(
        self, parameters: Mapping[str, str] | None = None, names: Mapping[str, str] | None = None
    ) -> None:
        self.text = written()
        self.names = names or {}
        self.values = {
            "AWS::AccountId": ACCOUNT,
            "AWS::Partition": "aws",
            "AWS::Region": REGION,
            "AWS::URLSuffix": "amazonaws.com",
            **{name: str(of["Default"]) for name, of in self.text["Parameters"].items()},
            **(parameters or {}),
        }
        self.resources = self._wanted("Resources")
        self.outputs = self._wanted("Outputs")

    def _wanted(self, section: str) -> dict[str, Any]:
        """What of a section there is with these parameters."""
        return {
            name: of
            for name, of in self.text[section].items()
            if "Condition" not in of or self._holds(of["Condition"])
        }

    def of_type(self, kind: str) -> dict[str, Any]:
        """The resolved properties of all resources of a type, by their logical names."""
        return {
            name: self.resolved(resource["Properties"])
            for name, resource in self.resources.items()
            if resource["Type"] == f"AWS::{kind}"
        }

    def resolved(self, node: Any) -> Any:
        match node:
            case {"Ref": name}:
                return self.name(name)
            case {"Fn::GetAtt": [name, "Arn"]}:
                return self.arn(name)
            case {"Fn::Sub": str(text)}:
                return re.sub(r"\$\{([^}]+)\}", lambda found: self._named(found[1]), text)
            case {"Fn::If": [condition, then, otherwise]}:
                return self.resolved(then if self._holds(condition) else otherwise)
            case dict():
                assert not any(key.startswith("Fn::") for key in node), node
                return {key: self.resolved(value) for key, value in node.items()}
            case list():
                return [self.resolved(value) for value in node]
        return node

    def _holds(self, condition: str) -> bool:
        return self._is(self.text["Conditions"][condition])

    def _is(self, condition: Any) -> bool:
        match condition:
            case {"Fn::Not": [negated]}:
                return not self._is(negated)
            case {"Fn::Equals": [one, other]}:
                return bool(self.resolved(one) == self.resolved(other))
        raise AssertionError(condition)

    def _named(self, name: str) -> str:
        return self.arn(name[:-4]) if name.endswith(".Arn") else self.name(name)

    def name(self, name: str) -> str:
        """What `Ref` gives."""
        if name in self.values:
            return self.values[name]
        kind = self.resources[name]["Type"]
        if kind in ("AWS::SecretsManager::Secret", "AWS::IAM::ManagedPolicy"):
            return self.names.get(name, self.arn(name))
        if kind == "AWS::Athena::WorkGroup":
            return str(self.resolved(self.resources[name]["Properties"]["Name"]))
        return self.names.get(name, name.lower())

    def arn(self, name: str) -> str:
        kind = self.resources[name]["Type"]
        if kind == "AWS::S3::Bucket":
            return f"arn:aws:s3:::{self.name(name)}"
        return f"arn:aws:{kind.split('::')[1].lower()}:{REGION}:{ACCOUNT}:{name}"


@dataclass(frozen=True)
class Rights:
    """What a role may do."""

    statements: list[dict[str, Any]] = field(default_factory=list)

    def allow(self, action: str, resource: str, **context: str) -> bool:
        """Whether a request is allowed.

        Args:
            action: as policies name it.
            resource: its ARN.
            context: what conditions look at, with `_` for `:`.
        """
        known = {name.replace("_", ":").lower(): value for name, value in context.items()}
        return any(
            any(matches(action.lower(), wanted.lower()) for wanted in listed(statement["Action"]))
            and any(matches(resource, wanted) for wanted in listed(statement["Resource"]))
            and all(
                any(
                    matches(known[key.lower()], wanted)
                    for wanted in listed(values)
                    if key.lower() in known
                )
                for conditions in statement.get("Condition", {}).values()
                for key, values in conditions.items()
            )
            for statement in self.statements
        )


def matches(text: str, pattern: str) -> bool:
    assert "[" not in pattern, "would mean something to fnmatch, and nothing to AWS"
    return fnmatchcase(text, pattern)


def listed(one_or_several: Any) -> list[str]:
    return one_or_several if isinstance(one_or_several, list) else [one_or_several]


@cache
def rights(role: str, jobs_on: str = "none") -> Rights:
    """What a role's policies let it do."""
    template = Template({"JobsOn": jobs_on})
    properties = template.of_type("IAM::Role")[role]
    managed = template.of_type("IAM::ManagedPolicy")
    by_arn = {template.arn(name): policy for name, policy in managed.items()}
    policies = [*properties.get("Policies", [])]
    policies += [by_arn[arn] for arn in properties.get("ManagedPolicyArns", [])]
    policies += [of for of in managed.values() if template.name(role) in of.get("Roles", [])]
    statements = [one for policy in policies for one in policy["PolicyDocument"]["Statement"]]
    for statement in statements:
        assert statement["Effect"] == "Allow"
        assert statement.keys() <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        assert statement.get("Condition", {}).keys() <= {"StringLike", "StringEquals"}
    return Rights(statements)


@cache
def actions(service: str) -> list[str]:
    """All actions of a service that policies know."""
    known = files("cfnlint") / "data" / "AdditionalSpecs" / "Policies.json"
    found = json.loads(known.read_text())[service]["Actions"]
    assert len(found) > 10
    return [f"{service}:{action}" for action in found]


def lake(key: str) -> str:
    """The ARN of an object in the lake's bucket."""
    return f"arn:aws:s3:::lakebucket/{key}"


def objects(table: Table) -> str:
    return lake(f"{PREFIX}/{table.path}/ingestion_date=2023-08-06/part-0.parquet")


def glue_table(name: str) -> str:
    return f"{GLUE}:table/stedi/{name}"


KEEPERS = ["PipelineRole", "PrivacyOfficerRole"]
NOT_CURATED = [
    *(lake(f"{PREFIX}/{source}/landing/a.json") for source in Source),
    *map(objects, OTHERS),
    lake(f"{PREFIX}/{ERASURES}/20250101T000000Z-0.parquet"),
    lake(f"{PREFIX}/{ERASURES}/20250101T000000Z-0.json"),
    lake(f"{PREFIX}/{REPORTS}/latest.html"),
    lake(f"{PREFIX}/_reconciled.parquet"),
    lake(f"{PREFIX}/stedi.duckdb"),
    lake(f"{PREFIX}/customer/curated_before/a.parquet"),
    lake(f"{PREFIX}/accelerometer/curated/a.parquet"),
    lake("customer/curated/a.parquet"),
    lake(f"{SNAPSHOTS}/a.parquet"),
    lake("other/lake/customer/curated/a.parquet"),
]


def test_the_template_has_nothing_that_cfn_lint_finds_fault_with() -> None:
    assert [str(fault) for fault in lint_file(TEMPLATE)] == []


def test_the_keys_of_the_curated_tables_are_those_that_the_template_says() -> None:
    assert {table.path for table in CURATED} == {"customer/curated", "step_trainer/curated"}
    assert {table.name for table in CURATED} == {"customers_curated", "machine_learning_curated"}


@pytest.mark.parametrize("resource", NOT_CURATED)
def test_a_data_scientist_can_do_nothing_with_an_object_that_is_not_curated(resource: str) -> None:
    role = rights("DataScientistRole")
    through_s3 = {"kms_ViaService": f"s3.{REGION}.amazonaws.com"}
    for action in actions("s3"):
        for prefix in (f"{PREFIX}/customer/curated/", f"{PREFIX}/customer/landing/"):
            assert not role.allow(action, resource, s3_prefix=prefix, **through_s3), action


@pytest.mark.parametrize("table", CURATED, ids=lambda table: table.name)
def test_a_data_scientist_reads_curated_objects_and_does_nothing_else_to_them(table: Table) -> None:
    role = rights("DataScientistRole")
    allowed = [action for action in actions("s3") if role.allow(action, objects(table))]
    assert allowed == ["s3:getobject"]


def test_a_data_scientist_reads_and_makes_snapshots_and_removes_none() -> None:
    role, key = rights("DataScientistRole"), lake(f"{PREFIX}/{SNAPSHOTS}/walks.parquet")
    allowed = {action for action in actions("s3") if role.allow(action, key)}
    assert allowed == {"s3:abortmultipartupload", "s3:getobject", "s3:putobject"}


def test_a_data_scientist_lists_what_is_curated_and_snapshots_alone() -> None:
    role, bucket = rights("DataScientistRole"), "arn:aws:s3:::lakebucket"

    def allowed(**context: str) -> list[str]:
        return [action for action in actions("s3") if role.allow(action, bucket, **context)]

    of_any = ["s3:getbucketlocation"]
    assert allowed() == of_any
    for table in CURATED:
        for end in ("", "/", "/ingestion_date=2023-08-06/"):
            found = allowed(s3_prefix=f"{PREFIX}/{table.path}{end}")
            assert found == [*of_any, "s3:listbucket"]
    assert allowed(s3_prefix=f"{PREFIX}/{SNAPSHOTS}/") == [*of_any, "s3:listbucket"]
    others = (ERASURES, REPORTS, "customer")
    for prefix in ("", f"{PREFIX}/", *(f"{PREFIX}/{folder}/" for folder in others)):
        assert allowed(s3_prefix=prefix) == of_any
    for table in OTHERS:
        assert allowed(s3_prefix=f"{PREFIX}/{table.path}/") == of_any


@pytest.mark.parametrize(
    "name",
    [*(t.name for t in OTHERS), *(f"{s}_landing_json" for s in Source), "customers_curated_2"],
)
def test_a_data_scientist_can_do_nothing_with_a_table_that_is_not_curated(name: str) -> None:
    role = rights("DataScientistRole")
    assert not any(role.allow(action, glue_table(name)) for action in actions("glue"))


@pytest.mark.parametrize("name", [table.name for table in CURATED])
def test_a_data_scientist_only_reads_what_glue_knows_of_curated_tables(name: str) -> None:
    role = rights("DataScientistRole")
    for resource in (glue_table(name), f"{GLUE}:database/stedi", f"{GLUE}:catalog"):
        allowed = {action for action in actions("glue") if role.allow(action, resource)}
        assert {"glue:gettable", "glue:getpartitions"} <= allowed
        assert all(re.match("glue:(batch)?get", action) for action in allowed)


def test_nobody_but_those_who_keep_the_lake_reads_the_key_of_the_pseudonyms() -> None:
    template = Template()
    (key,) = (template.name(name) for name in template.of_type("SecretsManager::Secret"))
    may = {
        role
        for role in template.of_type("IAM::Role")
        if any(rights(role).allow(action, key) for action in actions("secretsmanager"))
    }
    assert may == set(KEEPERS)
    for role in may:
        read = [a for a in actions("secretsmanager") if rights(role).allow(a, key)]
        assert read == ["secretsmanager:getsecretvalue"]


def test_a_data_scientist_sees_no_results_of_what_others_queried() -> None:
    template = Template()
    where = {
        properties["Name"]: properties["WorkGroupConfiguration"]
        for properties in template.of_type("Athena::WorkGroup").values()
    }
    for configuration in where.values():
        assert configuration["EnforceWorkGroupConfiguration"], "a query could say another place"
        assert configuration["BytesScannedCutoffPerQuery"] == "10000000000"
    role = rights("DataScientistRole")
    (own,) = (
        name
        for name in where
        if role.allow(
            "athena:StartQueryExecution", f"arn:aws:athena:{REGION}:{ACCOUNT}:workgroup/{name}"
        )
    )
    for name, configuration in where.items():
        place = configuration["ResultConfiguration"]["OutputLocation"].removeprefix("s3://")
        for action in ("s3:GetObject", "s3:PutObject"):
            assert role.allow(action, f"arn:aws:s3:::{place}query.csv") is (name == own)
    assert not any(role.allow(a, "arn:aws:s3:::resultsbucket/dagster/a.err") for a in actions("s3"))


OBJECT, BUCKET = lake(f"{PREFIX}/customer/landing/a.json"), "arn:aws:s3:::lakebucket"
NEEDS = {
    "abort_multipart_upload": [("s3:AbortMultipartUpload", OBJECT)],
    "delete_object": [("s3:DeleteObject", OBJECT), ("s3:DeleteObjectVersion", OBJECT)],
    "get_object": [("s3:GetObject", OBJECT), ("s3:GetObjectVersion", OBJECT)],
    # Without the right to list, an object that is not there would be one that may not be read.
    "head_object": [
        ("s3:GetObject", OBJECT),
        ("s3:GetObjectVersion", OBJECT),
        ("s3:ListBucket", BUCKET),
    ],
    "list_multipart_uploads": [("s3:ListBucketMultipartUploads", BUCKET)],
    "list_object_versions": [("s3:ListBucketVersions", BUCKET)],
    "list_objects_v2": [("s3:ListBucket", BUCKET)],
    "put_object": [("s3:PutObject", OBJECT)],
    "upload": [("s3:PutObject", OBJECT), ("s3:AbortMultipartUpload", OBJECT)],
}
"""What the operations of boto3 that the package may call need, with or without a version."""


def operations(module: ModuleType) -> set[str]:
    """The operations of boto3 that a module calls."""
    found = set()
    for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
        match node:
            case ast.Call(ast.Attribute(_, "_pages" | "get_paginator"), [ast.Constant(name), *_]):
                found.add(name)
            case ast.Attribute(ast.Attribute(_, client), name) if client in CLIENTS:
                found.add(name)
            case ast.Call(ast.Attribute(ast.Name("transfer"), name)):
                found.add(name)
    return found - {"exceptions", "get_paginator", "meta"}


CLIENTS = ("_client", "_s3_session", "client")


def as_action(service: str, operation: str) -> str:
    return f"{service}:{operation.replace('_', '')}"


@pytest.mark.parametrize("role", KEEPERS)
def test_who_keeps_the_lake_may_do_what_the_package_calls_and_nothing_more(role: str) -> None:
    called = operations(s3)
    assert {"delete_object", "head_object", "list_object_versions", "upload"} <= called
    assert called == NEEDS.keys(), "say above what it needs, and allow it in the template"
    needed = {(action.lower(), on) for name in called for action, on in NEEDS[name]}
    may = {
        (action, resource)
        for resource in (OBJECT, BUCKET)
        for action in actions("s3")
        if rights(role).allow(action, resource)
    }
    assert may == needed | {("s3:getbucketlocation", BUCKET)}, "the last one is Athena's"


@pytest.mark.parametrize("jobs_on", ["none", "glue", "emr-serverless"])
def test_no_role_has_rights_of_other_services_or_to_more_than_folders(jobs_on: str) -> None:
    of_services = {
        "DataScientistRole": {"athena", "glue", "kms", "s3"},
        "JobRole": {"kms", "logs", "s3", "secretsmanager"},
        "PipelineRole": {"athena", "glue", "kms", "s3", "secretsmanager"},
        "PrivacyOfficerRole": {"athena", "glue", "kms", "s3", "secretsmanager"},
    }
    if jobs_on == "none":
        del of_services["JobRole"]
    if jobs_on == "emr-serverless":
        of_services["PipelineRole"] |= {"emr-serverless", "iam"}
    assert Template({"JobsOn": jobs_on}).of_type("IAM::Role").keys() == of_services.keys()
    for role, services in of_services.items():
        statements = rights(role, jobs_on).statements
        named = {action for of in statements for action in listed(of["Action"])}
        assert {action.split(":")[0] for action in named} == services
        assert not any("*" in action or "?" in action for action in named)
        for resource in (one for of in statements for one in listed(of["Resource"])):
            assert re.fullmatch(r"arn:aws:[^*?]*[^*?:](/\*)?|arn:aws:logs:[^*?]*\*", resource)
            assert resource.count(":") >= 5, "whatever a resource is, it is of the stack"


def test_a_data_scientist_decrypts_what_comes_from_s3_and_no_secret() -> None:
    role, key = rights("DataScientistRole"), Template().arn("Key")
    through = {service: f"{service}.{REGION}.amazonaws.com" for service in ("s3", "secretsmanager")}
    assert role.allow("kms:Decrypt", key, kms_ViaService=through["s3"])
    assert not role.allow("kms:Decrypt", key, kms_ViaService=through["secretsmanager"])
    assert not role.allow("kms:Decrypt", key)


@pytest.mark.parametrize("role", KEEPERS)
def test_who_keeps_the_lake_writes_and_reads_reports(role: str) -> None:
    for action in ("s3:PutObject", "s3:GetObject", "s3:DeleteObject"):
        assert rights(role).allow(action, lake(f"{PREFIX}/{REPORTS}/latest.html"))


@pytest.mark.parametrize("role", KEEPERS)
def test_who_keeps_the_lake_may_do_in_glue_what_the_package_calls_and_what_athena_reads(
    role: str,
) -> None:
    called = {as_action("glue", name) for name in operations(glue)}
    assert {"glue:createtable", "glue:batchupdatepartition", "glue:getpartitions"} <= called
    for name in TABLES:
        for resource in (glue_table(name), f"{GLUE}:database/stedi", f"{GLUE}:catalog"):
            may = {action for action in actions("glue") if rights(role).allow(action, resource)}
            assert may == called | {"glue:getdatabase", "glue:getpartition"}
    for resource in (f"{GLUE}:table/other/customer_landing", f"{GLUE}:database/other"):
        assert not any(rights(role).allow(action, resource) for action in actions("glue"))
    of_default = f"{GLUE}:table/default/customer_landing"
    assert not any(rights(role).allow(action, of_default) for action in actions("glue"))


@pytest.mark.parametrize("role", KEEPERS)
def test_who_keeps_the_lake_may_count_in_athena(role: str) -> None:
    template = Template()
    (group,) = (
        of for of in template.of_type("Athena::WorkGroup").values() if "pipeline" in of["Name"]
    )
    called = operations(athena.resources)
    assert called == {"start_query_execution", "get_query_execution"}
    workgroup = f"arn:aws:athena:{REGION}:{ACCOUNT}:workgroup/{group['Name']}"
    may = {action for action in actions("athena") if rights(role).allow(action, workgroup)}
    assert may == {as_action("athena", name) for name in called}
    place = group["WorkGroupConfiguration"]["ResultConfiguration"]["OutputLocation"]
    for action in ("s3:GetObject", "s3:PutObject"):
        assert rights(role).allow(action, f"arn:aws:s3:::{place.removeprefix('s3://')}query.csv")


# Jobs that make tables.

JOBS = ["glue", "emr-serverless"]


@pytest.mark.parametrize("jobs_on", JOBS)
def test_a_job_reads_the_lake_and_writes_tables_and_nothing_else(jobs_on: str) -> None:
    role = rights("JobRole", jobs_on)

    def may(key: str) -> set[str]:
        return {action for action in actions("s3") if role.allow(action, lake(key))}

    written = {"s3:abortmultipartupload", "s3:putobject"}
    for table in TABLES.values():
        key = f"{PREFIX}/{table.path}/ingestion_date=2023-08-06/part-0.parquet"
        assert may(key) == {"s3:getobject", *written}
    for key in (f"{PIPES}/a/1.json", f"{EXCHANGE}/a/1.parquet"):
        assert may(f"{PREFIX}/{key}") == {"s3:getobject", "s3:deleteobject", *written}
    for source in Source:
        assert may(f"{PREFIX}/{source}/landing/trusted/a.json") == {"s3:getobject"}
    for key in (f"{ERASURES}/a.parquet", RECONCILED):
        assert may(f"{PREFIX}/{key}") == {"s3:getobject"}
    for key in (f"{REPORTS}/latest.html", f"{SNAPSHOTS}/a.parquet", "_other/a"):
        assert may(f"{PREFIX}/{key}") == set()
    assert may("other/customer/landing/a.json") == set()
    assert role.allow("s3:ListBucket", BUCKET)
    assert role.allow("s3:GetObject", "arn:aws:s3:::resultsbucket/jobs/job.py")
    assert not role.allow("s3:GetObject", "arn:aws:s3:::resultsbucket/athena/pipeline/a.csv")
    assert not [action for action in actions("glue") if role.allow(action, glue_table("any"))]


@pytest.mark.parametrize("jobs_on", JOBS)
def test_the_pipeline_runs_that_job_and_no_other(jobs_on: str) -> None:
    template = Template({"JobsOn": jobs_on})
    pipeline, service = rights("PipelineRole", jobs_on), f"arn:aws:{jobs_on}:{REGION}:{ACCOUNT}"
    own, other, needed = {
        "glue": (
            f"{service}:job/stedi_tables",
            f"{service}:job/other",
            {"startjobrun", "getjobrun", "batchstopjobrun"},
        ),
        "emr-serverless": (
            f"{service}:/applications/emrapplication/jobruns/1",
            f"{service}:/applications/other/jobruns/1",
            {"startjobrun", "getjobrun", "canceljobrun", "getapplication", "tagresource"}
            | {"getdashboardforjobrun"},
        ),
    }[jobs_on]
    needed = {f"{jobs_on}:{action}" for action in needed}
    assert {action for action in actions(jobs_on) if pipeline.allow(action, own)} == needed
    for elsewhere in (rights("PipelineRole"), rights("PrivacyOfficerRole", jobs_on)):
        assert not [action for action in actions(jobs_on) if elsewhere.allow(action, own)]
    assert not [action for action in actions(jobs_on) if pipeline.allow(action, other)]
    role, passed = template.arn("JobRole"), {"iam_PassedToService": "emr-serverless.amazonaws.com"}
    assert pipeline.allow("iam:PassRole", role, **passed) is (jobs_on == "emr-serverless")
    assert not pipeline.allow("iam:PassRole", template.arn("PipelineRole"), **passed)


@pytest.mark.parametrize("jobs_on", JOBS)
def test_a_job_reads_the_key_of_the_pseudonyms_and_is_trusted_as_its_service_alone(
    jobs_on: str,
) -> None:
    template = Template({"JobsOn": jobs_on})
    role = template.of_type("IAM::Role")["JobRole"]
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": f"{jobs_on}.amazonaws.com"}
    key = template.name("PseudonymKey")
    read = [a for a in actions("secretsmanager") if rights("JobRole", jobs_on).allow(a, key)]
    assert read == ["secretsmanager:getsecretvalue"]


def test_the_job_of_glue_is_given_the_program_and_never_starts_again_by_itself() -> None:
    template = Template({"JobsOn": "glue", "JobWorkers": "7"})
    (job,) = template.of_type("Glue::Job").values()
    assert job["Command"]["ScriptLocation"] == "s3://resultsbucket/jobs/job.py"
    modules = job["DefaultArguments"]["--additional-python-modules"]
    assert modules == "s3://resultsbucket/jobs/stedi.gluewheels.zip"
    assert job["MaxRetries"] == 0, "a run waits for one"
    assert job["ExecutionProperty"] == {"MaxConcurrentRuns": 1}
    assert job["NumberOfWorkers"] == "7"
    assert "EmrApplication" not in template.resources


def test_without_jobs_the_stack_has_none_of_it() -> None:
    of_jobs = {"JobRole", "GlueJob", "EmrApplication", "StartJobs"}
    assert not of_jobs & Template().resources.keys()
    assert of_jobs <= written()["Resources"].keys()


LOG = "arn:aws:s3:::resultsbucket/dagster/storage/run/compute_logs/a.err"
LOGS_NEED = {
    "delete_objects": ["s3:DeleteObject"],
    "download_fileobj": ["s3:GetObject"],
    "generate_presigned_url": ["s3:GetObject"],
    "head_object": ["s3:GetObject"],
    "list_objects": [],
    "list_objects_v2": [],
    "upload_fileobj": ["s3:PutObject", "s3:AbortMultipartUpload"],
}


def test_the_pipeline_alone_keeps_what_runs_print() -> None:
    assert operations(compute_log_manager) == LOGS_NEED.keys()
    needed = {action for of_one in LOGS_NEED.values() for action in of_one}
    for action in needed:
        assert rights("PipelineRole").allow(action, LOG), action
        assert not rights("PrivacyOfficerRole").allow(action, LOG), action
    bucket = "arn:aws:s3:::resultsbucket"
    assert rights("PipelineRole").allow("s3:ListBucket", bucket, s3_prefix="dagster/storage/run")


@pytest.mark.parametrize("role", ["DataScientistRole", *KEEPERS])
def test_no_role_changes_buckets_or_rights(role: str) -> None:
    of_bucket = {a for a in actions("s3") if rights(role).allow(a, BUCKET, s3_prefix=f"{PREFIX}/")}
    assert all(re.match("s3:(list|getbucketlocation)", action) for action in of_bucket)
    for service in ("iam", "kms", "sts"):
        of_any = f"arn:aws:{service}:{REGION}:{ACCOUNT}:any"
        assert not [action for action in actions(service) if rights(role).allow(action, of_any)]


def test_who_may_take_on_a_role_can_be_said() -> None:
    ann = f"arn:aws:iam::{ACCOUNT}:user/ann"
    service = "ecs-tasks.amazonaws.com"
    template = Template({"DataScientistPrincipal": ann, "PipelineService": service})
    trusted = {
        role: [s["Principal"] for s in properties["AssumeRolePolicyDocument"]["Statement"]]
        for role, properties in template.of_type("IAM::Role").items()
    }
    assert trusted == {
        "DataScientistRole": [{"AWS": ann}],
        "PrivacyOfficerRole": [{"AWS": f"arn:aws:iam::{ACCOUNT}:root"}],
        "PipelineRole": [{"Service": service}],
    }


def test_both_buckets_are_encrypted_private_and_reached_over_tls_alone() -> None:
    template = Template()
    policies = {p["Bucket"]: p for p in template.of_type("S3::BucketPolicy").values()}
    buckets = template.of_type("S3::Bucket")
    assert buckets.keys() == {"LakeBucket", "ResultsBucket"}
    for name, bucket in buckets.items():
        (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
        assert list(bucket["PublicAccessBlockConfiguration"].values()) == [True] * 4
        statement, *of_encryption = policies[template.name(name)]["PolicyDocument"]["Statement"]
        for one in (statement, *of_encryption):
            assert one["Effect"] == "Deny"
            assert one["Principal"] == "*"
        said = {
            "s3:x-amz-server-side-encryption": "aws:kms",
            "s3:x-amz-server-side-encryption-aws-kms-key-id": template.arn("Key"),
        }
        assert [one["Condition"] for one in of_encryption] == [
            {"Null": {header: "false"}, "StringNotEquals": {header: right}}
            for header, right in said.items()
        ]
        assert all(
            (one["Action"], one["Resource"]) == ("s3:PutObject", f"{template.arn(name)}/*")
            for one in of_encryption
        )
        assert statement["Action"] == "s3:*"
        assert statement["Resource"] == [template.arn(name), f"{template.arn(name)}/*"]
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        rules = bucket["LifecycleConfiguration"]["Rules"]
        assert any("AbortIncompleteMultipartUpload" in rule for rule in rules)
        assert template.resources[name]["DeletionPolicy"] == "Retain"


def test_the_lake_keeps_old_versions_for_a_while_and_results_expire() -> None:
    buckets = Template({"KeepOldVersionsDays": "9"}).of_type("S3::Bucket")
    assert buckets["LakeBucket"]["VersioningConfiguration"] == {"Status": "Enabled"}
    rules = buckets["LakeBucket"]["LifecycleConfiguration"]["Rules"]
    (rule,) = (rule for rule in rules if "NoncurrentVersionExpiration" in rule)
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": "9"}
    assert rule["ExpiredObjectDeleteMarker"]
    assert not any("ExpirationInDays" in rule for rule in rules), "a lake keeps its files"
    rules = buckets["ResultsBucket"]["LifecycleConfiguration"]["Rules"]
    expire = {rule["Prefix"]: rule["ExpirationInDays"] for rule in rules if "Prefix" in rule}
    assert expire == {"athena/": "7", "dagster/": "30"}
    assert "VersioningConfiguration" not in buckets["ResultsBucket"]


UNKNOWN_TO_MOTO = (
    "AWS::Athena::WorkGroup",
    "AWS::Glue::Database",
    "AWS::S3::BucketPolicy",
    "AWS::SecretsManager::Secret",
)
"""Types that moto's CloudFormation leaves out. They are made through the services themselves, of
the same properties, and what refers to them gets the names that it would get."""


def test_the_stack_can_be_created(s3_server: str) -> None:
    access = {
        "endpoint_url": s3_server,
        "region_name": REGION,
        "aws_access_key_id": "dummy",
        "aws_secret_access_key": "dummy",
    }
    template = Template()
    supported = {
        name: {**resource, "Properties": with_names(template, resource["Properties"])}
        for name, resource in template.resources.items()
        if resource["Type"] not in UNKNOWN_TO_MOTO
    }
    text = {
        **template.text,
        "Resources": supported,
        "Outputs": with_names(template, template.outputs),
    }
    cloudformation = boto3.client("cloudformation", **access)
    with warnings.catch_warnings(action="error"):
        cloudformation.create_stack(
            StackName="stedi", TemplateBody=json.dumps(text), Capabilities=["CAPABILITY_IAM"]
        )
    (stack,) = cloudformation.describe_stacks(StackName="stedi")["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    made = cloudformation.describe_stack_resources(StackName="stedi")["StackResources"]
    assert {resource["LogicalResourceId"] for resource in made} == supported.keys()
    names = {of["LogicalResourceId"]: of["PhysicalResourceId"] for of in made}
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    assert outputs["Lake"] == f"s3://{names['LakeBucket']}/{PREFIX}"

    s3_client = boto3.client("s3", **access)
    for bucket in ("LakeBucket", "ResultsBucket"):
        assert s3_client.get_bucket_encryption(Bucket=names[bucket])

    rest = Template(names=names)
    for policy in rest.of_type("S3::BucketPolicy").values():
        document = json.dumps(policy["PolicyDocument"])
        s3_client.put_bucket_policy(Bucket=policy["Bucket"], Policy=document)
    for database in rest.of_type("Glue::Database").values():
        boto3.client("glue", **access).create_database(**database)
    athena = boto3.client("athena", **access)
    for group in rest.of_type("Athena::WorkGroup").values():
        athena.create_work_group(Name=group["Name"], Description=group["Description"])
    secrets = boto3.client("secretsmanager", **access)
    for secret in rest.of_type("SecretsManager::Secret").values():
        generate = secret["GenerateSecretString"]
        password = secrets.get_random_password(
            PasswordLength=generate["PasswordLength"],
            ExcludePunctuation=generate["ExcludePunctuation"],
        )["RandomPassword"]
        assert re.fullmatch("[0-9A-Za-z]{64}", password)


def with_names(template: Template, node: Any) -> Any:
    """What refers to a resource that moto does not know gets its name; the rest stays as it is."""
    match node:
        case {"Ref": name} if name in template.resources:
            unknown = template.resources[name]["Type"] in UNKNOWN_TO_MOTO
            return template.name(name) if unknown else node
        case {"Fn::Sub": str(text)}:
            return {
                "Fn::Sub": re.sub(
                    r"\$\{(\w+)\}", lambda found: _name_or_reference(template, found), text
                )
            }
        case dict():
            return {key: with_names(template, value) for key, value in node.items()}
        case list():
            return [with_names(template, value) for value in node]
    return node


def _name_or_reference(template: Template, found: re.Match[str]) -> str:
    resource = template.resources.get(found[1])
    unknown = resource and resource["Type"] in UNKNOWN_TO_MOTO
    return template.name(found[1]) if unknown else found[0]
