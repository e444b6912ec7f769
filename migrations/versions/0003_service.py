"""The service that loses nothing: resumable uploads, a cache of stages, timings, webhooks, keys, shares, tallies."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
TABLES = ("webhook_delivery", "webhook_endpoint", "share", "upload", "stage_cache", "tally", "stage_timing", "key_session", "api_key")
COLUMNS = {"job_stage": ("cache_key",), "job": ("traceparent", "waits_for", "expires_at", "key_id", "priority"), "capture": ("key_id",)}


def upgrade() -> None:
    op.create_table(
        "api_key",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("prefix", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("quotas", sa.JSON(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=True),
        sa.Column("revoked_at", MOMENT, nullable=True),
        sa.Column("used_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("api_key_hash", "api_key", ["sha256"], unique=True)
    op.create_table(
        "key_session",
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(length=36), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["key_id"],
            ["api_key.id"],
        ),
        sa.PrimaryKeyConstraint("sha256"),
    )
    op.create_table(
        "stage_timing",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("preset", sa.String(), nullable=False),
        sa.Column("n_photos", sa.Integer(), nullable=False),
        sa.Column("work", sa.Double(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("peak_memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("disk_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("stage_timing_like", "stage_timing", ["stage", "device", "created_at"], unique=False)
    op.create_table(
        "tally",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("labels", sa.String(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", "labels"),
    )
    op.create_table(
        "stage_cache",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("capture_id", sa.String(length=36), nullable=False),
        sa.Column("storage_key", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("used_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["capture_id"],
            ["capture.id"],
        ),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("stage_cache_capture", "stage_cache", ["capture_id"], unique=False)
    op.create_index("stage_cache_used", "stage_cache", ["used_at"], unique=False)
    op.create_table(
        "upload",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("capture_id", sa.String(length=36), nullable=False),
        sa.Column("key_id", sa.String(length=36), nullable=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("given", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("parts", sa.JSON(), nullable=True),
        sa.Column("sha256", sa.String(), nullable=True),
        sa.Column("photo_id", sa.String(length=36), nullable=True),
        sa.Column("is_duplicate", sa.Boolean(), nullable=False),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["capture_id"],
            ["capture.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("upload_capture", "upload", ["capture_id"], unique=False)
    op.create_index("upload_open", "upload", ["state", "expires_at"], unique=False)
    op.create_table(
        "share",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("key_id", sa.String(length=36), nullable=True),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("revoked_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["job.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("share_hash", "share", ["sha256"], unique=True)
    op.create_index("share_job", "share", ["job_id"], unique=False)
    op.create_table(
        "webhook_endpoint",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=True),
        sa.Column("key_id", sa.String(length=36), nullable=True),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("secret", sa.String(), nullable=False),
        sa.Column("previous_secret", sa.String(), nullable=True),
        sa.Column("previous_until", MOMENT, nullable=True),
        sa.Column("types", sa.JSON(), nullable=False),
        sa.Column("disabled_at", MOMENT, nullable=True),
        sa.Column("disabled_why", sa.String(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("deleted_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["job.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("webhook_endpoint_job", "webhook_endpoint", ["job_id"], unique=False)
    op.create_table(
        "webhook_delivery",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("endpoint_id", sa.String(length=36), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=True),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", MOMENT, nullable=True),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.Column("last_seconds", sa.Double(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("delivered_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["endpoint_id"],
            ["webhook_endpoint.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("webhook_delivery_due", "webhook_delivery", ["state", "next_at"], unique=False)
    op.create_index("webhook_delivery_endpoint", "webhook_delivery", ["endpoint_id", "id"], unique=False)
    op.add_column("capture", sa.Column("key_id", sa.String(length=36), nullable=True))
    op.add_column("job", sa.Column("priority", sa.Integer(), server_default="0", nullable=False))
    op.add_column("job", sa.Column("key_id", sa.String(length=36), nullable=True))
    op.add_column("job", sa.Column("expires_at", MOMENT, nullable=True))
    op.add_column("job", sa.Column("waits_for", sa.String(), nullable=True))
    op.add_column("job", sa.Column("traceparent", sa.String(), nullable=True))
    op.add_column("job_stage", sa.Column("cache_key", sa.String(), nullable=True))


def downgrade() -> None:
    for table, columns in COLUMNS.items():
        for column in columns:
            # Not in batch mode: that drops the table and makes it anew, which other tables' foreign keys forbid on SQLite.
            op.drop_column(table, column)
    for table in TABLES:
        op.drop_table(table)
