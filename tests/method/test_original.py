"""No unlearning: the model is the original, and none other is stored."""

from cells import Cells

from unlearnbench.pipeline import outputs
from unlearnbench.pipeline.workspace import Workspace


def test_original_is_the_artifact_all_methods_start_from(
    new_workspace: Workspace, cell: Cells
) -> None:
    original, finetune = cell("method=original"), cell("method=finetune")
    assert original.model_key == finetune.original().model_key
    outputs.predict(new_workspace, original)
    manifests = [
        new_workspace.store.load(p.parent.name) for p in new_workspace.store.root.rglob("*.json")
    ]
    assert sorted(entry.manifest["kind"] for entry in manifests) == ["model", "predictions"]
