"""A worker says which device its stages run on."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("process", sa.Column("device", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    with op.batch_alter_table("process") as process:  # SQLite before 3.35 cannot drop a column
        process.drop_column("device")
