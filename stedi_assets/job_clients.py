"""What starts jobs of Glue and EMR Serverless: dagster-aws' Pipes clients, by the settings."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import dagster as dg
from dagster_aws.pipes import (
    PipesEMRServerlessClient,
    PipesGlueClient,
    PipesS3ContextInjector,
    PipesS3MessageReader,
)
from dagster_pipes import PipesParams

from stedi_assets.assets.by_jobs import Job, job_key
from stedi_assets.lake import Lake, LocalStorage
from stedi_assets.resources import emr_application, glue_job

PIPES = "_pipes"
"""The folder of the lake in which a run and its job leave each other messages."""


def _by_the_lake(lake: Lake) -> dict[str, Any]:
    """How jobs and runs tell each other things: by objects in a folder of the lake's bucket.

    Raises:
        ValueError: the lake is where no job finds it.
    """
    if isinstance(lake.storage, LocalStorage):
        raise ValueError(
            f"STEDI_ENGINE has tables made by jobs on AWS, and the lake is {lake.storage.uri()}, "
            "which these cannot reach. Set STEDI_LAKE to s3://bucket/prefix."
        )
    bucket, _, prefix = lake.storage.uri().removeprefix("s3://").partition("/")
    folder, s3 = f"{prefix}/{PIPES}/".lstrip("/"), boto3.client("s3")
    return {
        "context_injector": PipesS3ContextInjector(bucket=bucket, client=s3, key_prefix=folder),
        "message_reader": _MessageReader(folder, bucket=bucket, client=s3),
    }


class _MessageReader(PipesS3MessageReader):
    """Dagster's, but for messages in a folder, which are taken away when they have been read."""

    def __init__(self, folder: str, **more: Any) -> None:
        super().__init__(**more)
        self._folder = folder

    @contextmanager
    def get_params(self) -> Iterator[PipesParams]:
        with super().get_params() as params:
            of_session = f"{self._folder}{params['key_prefix']}"
            try:
                yield {**params, "key_prefix": of_session}
            finally:
                pages = self.client.get_paginator("list_objects_v2")
                for page in pages.paginate(Bucket=self.bucket, Prefix=f"{of_session}/"):
                    for message in page.get("Contents", []):
                        self.client.delete_object(Bucket=self.bucket, Key=message["Key"])


@dg.resource(required_resource_keys={"lake"}, config_schema={"name": str})
def glue_job_resource(context: dg.InitResourceContext) -> Job:
    """The job of Glue that makes tables."""
    client = PipesGlueClient(client=boto3.client("glue"), **_by_the_lake(context.resources.lake))
    return Job(client, {"start_job_run_params": {"JobName": context.resource_config["name"]}})


@dg.resource(
    required_resource_keys={"lake"},
    config_schema={"applicationId": str, "executionRoleArn": str, "entryPoint": str},
)
def emr_serverless_job_resource(context: dg.InitResourceContext) -> Job:
    """The application of EMR Serverless that makes tables."""
    application = dict(context.resource_config)
    driver = {"sparkSubmit": {"entryPoint": application.pop("entryPoint")}}
    client = PipesEMRServerlessClient(
        client=boto3.client("emr-serverless"), **_by_the_lake(context.resources.lake)
    )
    return Job(client, {"start_job_run_params": {**application, "jobDriver": driver}})


def jobs(used: Collection[str]) -> dict[str, object]:
    """The resources of the engines that are used, of those that are jobs.

    Raises:
        ValueError: a setting is missing.
    """
    found: dict[str, object] = {}
    if "glue" in used:
        found[job_key("glue")] = glue_job_resource.configured({"name": glue_job()})
    if "emr-serverless" in used:
        found[job_key("emr-serverless")] = emr_serverless_job_resource.configured(emr_application())
    return found
