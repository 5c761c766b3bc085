"""The tables of the queen's database: nodes, keys of clients and what these have used, models that commands declare.

Portable SQL, so that any database that SQLAlchemy knows will do.
"""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Double, Integer, MetaData, String, Table, Text

METADATA = MetaData()

BEEHIVES = Table(
    "beehives",
    METADATA,
    Column("node_name", String(253), primary_key=True),
    Column("ssh_host", String(253), nullable=False),
    Column("ssh_port", Integer, nullable=False),
    Column("ssh_user", String(64), nullable=False),
    Column("ssh_key_path", Text),
    Column("git_repo_url", Text),
    Column("git_branch", String(255), nullable=False),
    Column("install_path", Text),
    Column("hive_port", Integer, nullable=False),
    Column("last_connected_unix", BigInteger),
    Column("last_error", Text),
    Column("status", String(16), nullable=False),
    Column("backends", JSON, nullable=False),
    Column("devices", JSON, nullable=False),
)

CLIENT_KEYS = Table(
    "client_keys",
    METADATA,
    Column("name", String(63), primary_key=True),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("rights", JSON, nullable=False),
    Column("models", JSON(none_as_null=True)),
    Column("max_priority", Integer, nullable=False),
    Column("max_tasks", BigInteger),
    Column("tokens_per_day", BigInteger),
    Column("expires_unix", BigInteger),
    Column("created_unix", BigInteger, nullable=False),
    Column("last_used_unix", BigInteger),
)

# Models are counted by the hash of their name: a reference is longer than some databases let a key be.
KEY_USAGE = Table(
    "key_usage",
    METADATA,
    Column("client", String(63), primary_key=True),
    Column("model_sha256", String(64), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("model", Text, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("answer_tokens", BigInteger, nullable=False),
    # None in rows of an earlier version, and joules where no device told.
    Column("device_us", BigInteger),
    Column("joules", Double),
)

SERVED_MODELS = Table(
    "served_models",
    METADATA,
    Column("name", String(63), primary_key=True),
    Column("declaration", JSON, nullable=False),
)
