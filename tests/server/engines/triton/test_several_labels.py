"""A model of several labels: probabilities of their own, and a threshold."""

from pathlib import Path

import httpx
import onnx

from tests import tiny_models
from tests.photos import photo
from tests.stack import client_of, running_stack

RAW = {"Content-Type": "image/jpeg"}


def publish_sigmoid(repository: Path, name: str, activation: str) -> None:
    folder = tiny_models.publish(repository, name, parameters={"activation": activation})
    path = folder / tiny_models.MODEL_FILE
    model = onnx.load(path)
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    softmax.op_type = "Sigmoid"
    del softmax.attribute[:]
    onnx.save(model, path)


def test_each_label_has_a_probability_of_its_own(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    publish_sigmoid(repository, "labels", "sigmoid")
    publish_sigmoid(repository, "undeclared", "softmax")
    tiny_models.publish(repository, "classes")
    with (
        running_stack(repository, tmp_path / "log", "labels") as (_, gateway),
        client_of(gateway) as client,
    ):

        def ask(query: str) -> httpx.Response:
            return client.post(f"/classify{query}", content=photo(0, 64, 48), headers=RAW)

        everything = ask("?top_k=10").json()["predictions"]
        probabilities = [each["probability"] for each in everything]
        assert len(probabilities) == 10
        assert not 0.99 < sum(probabilities) < 1.01
        middle = (probabilities[3] + probabilities[4]) / 2
        assert ask(f"?threshold={middle}").json()["predictions"] == everything[:4]
        assert ask(f"?threshold={middle}&top_k=2").json()["predictions"] == everything[:2]
        assert ask("?threshold=0").json()["predictions"] == everything
        assert ask("?threshold=1").json()["predictions"] == []
        files = [("image", ("a.jpg", photo(0, 64, 48), "image/jpeg"))]
        batch = client.post(f"/classify/batch?threshold={middle}", files=files).json()
        assert batch["results"][0]["predictions"] == everything[:4]
        for wrong in ("1.5", "-0.1", "nan", "much", ""):
            refused = ask(f"?threshold={wrong}")
            assert refused.status_code == 422
            assert "expected a number from 0 to 1" in refused.json()["detail"]
        # A model that does not say so has to give probabilities of one class.
        assert ask("?model=undeclared").status_code in (502, 503)
        one = ask("?model=classes&threshold=0").json()["predictions"]
        assert abs(sum(each["probability"] for each in one) - 1) < 1e-3
