"""What one task hands to the next holds names of strangers: Airflow's templates leave them as they are."""

from __future__ import annotations

import pytest
from airflow.sdk.definitions._internal.mixins import ResolveMixin

from livekit_backup.operators.recover_files import DownloadFilesOperator, VerifyAndLandOperator
from livekit_backup.operators.report import AllSafeOperator
from livekit_backup.operators.resolve_manifests import ResolveManifestsOperator

SPELLS = ["{{ 7 * 7 }}", "{% raw %}", "{{ conn.aws_default.password }}", "{{", "{{ var.value.x }}.sql"]


class Handed(ResolveMixin):
    """Stands for another task's return value, as XComArg and the argument of a mapped group do."""

    def __init__(self, value):
        self.value = value

    def iter_references(self):
        return iter(())

    def resolve(self, context):
        return self.value


@pytest.mark.parametrize("spell", SPELLS)
@pytest.mark.parametrize(
    ("operator", "field"),
    [
        (DownloadFilesOperator, "bundle"),
        (VerifyAndLandOperator, "bundle"),
        (ResolveManifestsOperator, "intake"),
        (AllSafeOperator, "report"),
    ],
)
def test_a_name_that_is_handed_on_is_no_template(operator, field, spell):
    value = {"id": "1", "label": f"{spell} · a.mp4", "not_safe": [spell]}
    task = operator(task_id="t", **{field: Handed(value)})
    task.render_template_fields({})
    assert getattr(task, field) == value


def test_what_the_author_of_a_dag_writes_is_one():
    """Else the test above could not fail."""
    task = DownloadFilesOperator(task_id="t", bundle={"id": "{{ 7 * 7 }}"})
    task.render_template_fields({})
    assert task.bundle == {"id": "49"}
