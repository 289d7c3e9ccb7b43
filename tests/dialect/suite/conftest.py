import pytest
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

from libs.common.database.aiopg_dialect import PGDialect_aiopg

pytest.register_assert_rewrite("sqlalchemy.testing.assertions")

from sqlalchemy.testing.plugin.pytestplugin import *  # noqa: E402, F403 - its hooks

# How to make temporary tables and the like is looked for beside the dialect's module.
PGDialect_aiopg.load_provisioning = (  # type: ignore[method-assign]  # on purpose
    PGDialect_psycopg2.load_provisioning
)
