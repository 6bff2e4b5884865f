"""Where Dagster keeps the events of runs on a server: a PostgreSQL database.

Apart from `event_log.py`, which works where the extra `aws` is not installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dagster._serdes import ConfigurableClassData
from dagster_postgres import PostgresEventLogStorage
from dagster_postgres.utils import (
    create_pg_engine,
    get_token_provider_from_config,
    pg_url_from_config,
)

from stedi_assets.event_log import PartitionsOfChecks


class PostgresEventLog(PartitionsOfChecks, PostgresEventLogStorage):
    """Dagster's event log in PostgreSQL.

    It keeps connections, as the one in SQLite does: Dagster makes several for each event, seven
    hundred in a run over two days, which takes longer than all else in it.
    """

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> PostgresEventLog:
        """As Dagster makes its own, which would be one of its class."""
        url = pg_url_from_config(config_value)
        token_provider = get_token_provider_from_config(config_value)
        made = cls(
            inst_data=inst_data,
            postgres_url=url,
            should_autocreate_tables=config_value["should_autocreate_tables"],
            token_provider=token_provider,
        )
        made._engine = create_pg_engine(
            url, token_provider, isolation_level="AUTOCOMMIT", pool_size=1, pool_pre_ping=True
        )
        return made

    def dispose(self) -> None:
        """Close the connections."""
        super().dispose()
        self._engine.dispose()
