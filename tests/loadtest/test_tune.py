"""`python -m loadtest tune`: the knobs in config.pbtxt, and a search on a real Triton."""

import shutil
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from contracts.cpu import cpu_flags
from contracts.cpu_engines import engines_for, state_engine, stated_engine
from contracts.model_config import comments, config_text, read_config
from loadtest.engine_gate import EngineGate
from loadtest.load import loop, sample_images
from loadtest.load.triton_target import Triton
from loadtest.machine.conditions import cores
from loadtest.results import read
from loadtest.servers import stack
from loadtest.servers.launch import StackError
from loadtest.tune import NOTE, Knobs, Tuning, candidates, smallest_batch
from tests.loadtest.runs import loadtest
from tests.stack import DEFAULT_MODEL
from tests.waiting import CHECKOUT

CONFIG = CHECKOUT / "model_repository/mixer_cifar10/config.pbtxt"
# The same and more, in every spelling that protobuf's text format knows. Each states a queue delay
# of 250 µs, a maximum of 32, 2 instances and 3 threads.
POLICY = "default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 9 }"
DELAY = "max_queue_delay_microseconds: 250"
REST = 'name: "m" backend: "onnxruntime"'
THREADS = 'key: "intra_op_thread_count" value { string_value: "3" }'
SPELLINGS = {
    "a policy within": f"""{REST} max_batch_size: 32
        dynamic_batching {{ {POLICY} {DELAY} preferred_batch_size: [ 4, 8 ] }}
        instance_group [ {{ count: 2 kind: KIND_CPU }} ] parameters {{ {THREADS} }}""",
    "no blank": f"""{REST} max_batch_size:32 dynamic_batching{{max_queue_delay_microseconds:250}}
        instance_group[{{count:2}}]
        parameters{{key:"intra_op_thread_count"value{{string_value:"3"}}}}""",
    "colons before braces": f"""{REST} max_batch_size: 32 dynamic_batching: {{ {DELAY} }}
        instance_group: [ {{ count: 2 }} ] parameters: {{ {THREADS} }}""",
    "no list": f"""{REST} max_batch_size : 32 dynamic_batching {{ {DELAY} }}
        instance_group {{ count: 2 gpus: 0 gpus: 1 }} parameters {{ {THREADS} }}""",
    "angle brackets": f"""{REST} max_batch_size: 32 dynamic_batching < {DELAY} >
        instance_group < count: 2 > parameters < {THREADS} >""",
    "commas and semicolons": f"""name: "m", max_batch_size: 32;
        dynamic_batching {{ preserve_ordering: true, {DELAY}; }},
        instance_group [ {{ name: "first", count: 2; }} ]; parameters {{ {THREADS} }}""",
    "comments everywhere": f"""# max_batch_size: 5
        {REST} # dynamic_batching {{ }}
        max_batch_size: 32 # not 64
        dynamic_batching {{ # instance_group [ {{ count: 7 }} ]
          {DELAY} }} instance_group [ {{ # count: 9
          count: 2 }} ] parameters {{ {THREADS} }}""",
    "single quotes, hexadecimal": f"""{REST} max_batch_size: 0x20
        dynamic_batching {{ max_queue_delay_microseconds: 0xFA }} instance_group {{ count: 02 }}
        parameters {{ key: 'intra_op_thread_count' value {{ string_value: '3' }} }}""",
    "another order, lists of lists": f'''parameters [ {{ key: "threads" value {{
        string_value: "intra_op_thread_count" }} }}, {{ value {{ string_value: "3" }}
        key: "intra_op_thread_count" }} ] instance_group [ {{ kind: KIND_GPU gpus: [ 0, 1 ]
        count: 2 }}, {{ count: 5 kind: KIND_CPU }} ] dynamic_batching {{ {DELAY}
        priority_levels: 2 default_priority_level: 1 priority_queue_policy [ {{ key: 1
        value {{ max_queue_size: 3 }} }} ] }} max_batch_size: 32 name: "dynamic_batching {{ }}"''',
    "all that a model can have": f"""{REST} max_batch_size: 32 version_policy {{ latest {{
        num_versions: 2 }} }} input [ {{ name: "image" data_type: TYPE_UINT8
        dims: [ 8, 8, 3 ] }} ] output {{ name: "probabilities" data_type: TYPE_FP32 dims: 10
        label_filename: "labels.txt" }} dynamic_batching {{ {DELAY} }} instance_group {{ count: 2
        rate_limiter {{ resources [ {{ name: "r" count: 4 }} ] priority: 2 }} }}
        optimization {{ execution_accelerators {{ cpu_execution_accelerator: [ {{ name:
        "openvino" }} ] }} }} model_warmup {{ name: "w" batch_size: 1 inputs {{ key: "image"
        value {{ data_type: TYPE_UINT8 dims: [ 8, 8, 3 ] zero_data: true }} }} }}
        response_cache {{ enable: true }} parameters {{ {THREADS} }}""",
}


def parse(text: str) -> model_config_pb2.ModelConfig:
    """By protobuf itself."""
    config: model_config_pb2.ModelConfig = text_format.Parse(text, model_config_pb2.ModelConfig())
    return config


def test_knobs_are_read_back_as_they_were_written() -> None:
    config = parse(CONFIG.read_text())
    assert Knobs.read(config) == Knobs(0, 32, 1, 0)
    knobs = Knobs(1500, 8, 2, 3)
    knobs.write(config)
    assert Knobs.read(config) == knobs
    # What is not a knob is as it was.
    Knobs(0, 32, 1, 0).write(config)
    assert config == parse(CONFIG.read_text())


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_in_every_spelling_all_that_is_not_turned_is_kept(spelling: str) -> None:
    text = SPELLINGS[spelling]
    config, expected = parse(text), parse(text)
    before = Knobs.read(config)
    assert before == Knobs(250, 32, 2, 3)
    before.write(config)
    assert config == expected
    knobs = Knobs(1500, 64, 4, 1)
    knobs.write(config)
    written = config_text(config, comments(text))
    expected.dynamic_batching.max_queue_delay_microseconds = 1500
    expected.max_batch_size = 64
    expected.instance_group[0].count = 4
    expected.parameters["intra_op_thread_count"].string_value = "1"
    assert parse(written) == expected
    assert comments(written) == comments(text)


def test_what_a_configuration_leaves_out_is_added() -> None:
    config = parse("max_batch_size: 4")
    assert Knobs.read(config) == Knobs(0, 4, 1, 0)
    Knobs(0, 4, 1, 0).write(config)
    assert config == parse("max_batch_size: 4")
    Knobs(7, 4, 2, 1).write(config)
    assert config == parse(
        "max_batch_size: 4 dynamic_batching { max_queue_delay_microseconds: 7 } "
        'instance_group { count: 2 } parameters { key: "intra_op_thread_count" '
        'value { string_value: "1" } }'
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size: 4 sequence_batching { }", "has sequence_batching, whose batches"),
        ("max_batch_size: 4 ensemble_scheduling { }", "has ensemble_scheduling"),
        ("backend: 'onnxruntime'", "max_batch_size 0, so there are no batches"),
        (
            "max_batch_size: 4 parameters { key: 'intra_op_thread_count' "
            "value { string_value: 'all' } }",
            "intra_op_thread_count is 'all', expected a number",
        ),
    ],
)
def test_a_configuration_that_cannot_be_tuned_is_refused(text: str, message: str) -> None:
    with pytest.raises(StackError, match=message):
        Knobs.read(parse(text))


def test_batches_stay_as_large_as_the_rest_of_the_configuration_needs() -> None:
    config = parse("max_batch_size: 16 dynamic_batching { preferred_batch_size: [ 4, 8 ] }")
    assert smallest_batch(config) == 8
    tried = candidates(Knobs.read(config), 2, smallest_batch(config))
    assert tried["max_batch_size"] == [8, 16, 32]
    assert smallest_batch(parse("max_batch_size: 16 model_warmup { batch_size: 16 }")) == 16


@pytest.mark.timeout(400)  # up to ten servers are started, one after the other
def test_the_winner_is_written_with_its_evidence(model_repository: Path, tmp_path: Path) -> None:
    shutil.copytree(model_repository / DEFAULT_MODEL, tmp_path / DEFAULT_MODEL)
    out, page = tmp_path / "tune.json", tmp_path / "page.md"
    flags = (
        *("tune", "--model", DEFAULT_MODEL, "--repository", tmp_path, "--out", out),
        *("--knobs", "instances", "--concurrency", "2", "--seconds", "0.4"),
    )
    done = loadtest(*flags, "--slo-p99", "10000")
    assert done.returncode == 0, done.stderr
    result = read(out)
    tried = [each["knobs"]["instances"] for each in result["trials"]]
    searched = candidates(Knobs(0, 32, 1, 0), cores())["instances"]
    assert tried[: len(searched)] == searched
    assert max(each["rate"] for each in result["trials"]) > 0
    config = (tmp_path / DEFAULT_MODEL / "config.pbtxt").read_text()
    # What gains nothing beyond noise is not written.
    assert config.startswith(f"# {NOTE}") == (result["winner"]["instances"] != 1)
    assert Knobs.read(parse(config)) == Knobs(**result["winner"])
    assert loadtest("report", out, "--markdown", page).returncode == 0
    assert f"Tuned: {DEFAULT_MODEL}" in (tmp_path / "page/tuned.md").read_text()


def test_what_cannot_be_kept_changes_nothing(model_repository: Path, tmp_path: Path) -> None:
    shutil.copytree(model_repository / DEFAULT_MODEL, tmp_path / DEFAULT_MODEL)
    before = (tmp_path / DEFAULT_MODEL / "config.pbtxt").read_text()
    done = loadtest(
        *("tune", "--model", DEFAULT_MODEL, "--repository", tmp_path, "--slo-p99", "0.01"),
        *("--knobs", "--concurrency", "2", "--seconds", "0.2", "--out", tmp_path / "tune.json"),
    )
    assert done.returncode == 1
    assert "no setting answers within 0.01 ms" in done.stderr
    assert (tmp_path / DEFAULT_MODEL / "config.pbtxt").read_text() == before


class Planted(Tuning):
    """Trials whose rates are given: of each turn, by the number of instances."""

    rates: dict[int | str, list[float | str]]

    def _measured(self, knobs: Knobs) -> tuple[float, float | None, str]:
        planted = self.rates[knobs.engine if knobs.engine in self.rates else knobs.instances]
        rate = planted.pop(0) if len(planted) > 1 else planted[0]
        if isinstance(rate, str):
            raise StackError(rate)
        return rate, 1.0, ""


@pytest.mark.parametrize(
    ("one", "two", "dry_run", "winner", "written"),
    [
        ([100, 100, 101, 99, 100], [130, 131, 129, 130, 132], False, 2, True),
        ([100, 100, 101, 99, 100], [130, 131, 129, 130, 132], True, 2, False),
        # A lucky trial, and then noise.
        ([100, 204, 83, 179, 70], [150, 90, 267, 120, 229], False, 1, False),
        # Another one, and then a loss.
        ([100, 100, 101, 99, 100], [150, 80, 81, 79, 80], False, 1, False),
        ([100], ["no memory"], False, 1, False),
        (["no memory"], [100], False, 2, True),
        ([100], [101], False, 1, False),
    ],
)
def test_only_what_gains_beyond_noise_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    one: list[float | str],
    two: list[float | str],
    *,
    dry_run: bool,
    winner: int,
    written: bool,
) -> None:
    monkeypatch.setattr("loadtest.tune.conditions.cores", lambda: 2)
    model = tmp_path / DEFAULT_MODEL
    model.mkdir()
    shutil.copy(CONFIG, model)
    tuning = Planted(
        *(tmp_path, DEFAULT_MODEL, 100.0, []),
        seconds=1.0,
        concurrency=(1,),
        knobs=("instances",),
        out=tmp_path / "tune.json",
        settings={},
        dry_run=dry_run,
    )
    tuning.rates = {1: list(one), 2: list(two)}
    best = tuning.run()
    assert best is not None
    assert best.instances == winner
    assert ((model / "config.pbtxt").read_text() != CONFIG.read_text()) == written
    kept = {
        each["knobs"]["instances"]: each["note"] for each in read(tmp_path / "tune.json")["trials"]
    }
    assert set(kept) == {1, 2}
    assert ("did not start: no memory" in kept.values()) == ("no memory" in [*one, *two])


def test_settings_that_come_to_the_same_are_tried_once() -> None:
    assert Knobs(0, 32, 1, 0).effective(2) == Knobs(0, 32, 1, 2).effective(2)
    assert Knobs(0, 32, 2, 0).effective(2) == Knobs(0, 32, 2, 1)


def planted(folder: Path, knob: str, rates: dict[int | str, list[float | str]]) -> Planted:
    """A search of the shipped model in `folder` by one knob."""
    tuning = Planted(
        *(folder, DEFAULT_MODEL, 100.0, []),
        seconds=1.0,
        concurrency=(1,),
        knobs=(knob,),
        out=folder / "tune.json",
        settings={},
    )
    tuning.rates = rates
    return tuning


def test_a_faster_engine_is_written_with_what_each_engine_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loadtest.tune.cpu_flags", lambda: ["avx512_bf16"])
    (tmp_path / DEFAULT_MODEL).mkdir()
    path = Path(shutil.copy(CONFIG, tmp_path / DEFAULT_MODEL))
    rates: dict[int | str, list[float | str]] = {
        "onnxruntime": [100, 100, 101, 99, 100],
        "openvino": [130, 130, 131, 129, 130],
        "openvino-bf16": ["no memory"],
    }
    best = planted(tmp_path, "engine", rates).run()
    assert best == Knobs(0, 32, 1, 0, "openvino")
    expected = parse(CONFIG.read_text())
    state_engine(expected, "openvino")
    assert parse(path.read_text()) == expected
    told = [each.removeprefix(NOTE) for each in comments(path.read_text()) if NOTE in each]
    assert told[0].startswith("130.0 images/s with a p99 of at most 100 ms, before 100.0")
    assert told[1:] == [
        "onnxruntime: 100.0 images/s in time.",
        "openvino: 130.0 images/s in time.",
        "openvino-bf16: none in time.",
    ]
    kept = {each["knobs"]["engine"]: each for each in read(tmp_path / "tune.json")["trials"]}
    assert kept["openvino-bf16"]["note"] == "did not start: no memory"
    # A second search replaces the notes of the first.
    rates = {"onnxruntime": [200], "openvino": [100]}
    monkeypatch.setattr("loadtest.tune.cpu_flags", list)
    assert planted(tmp_path, "engine", rates).run() == Knobs(0, 32, 1, 0, "onnxruntime")
    notes = [each for each in comments(path.read_text()) if NOTE in each]
    assert len(notes) == 3
    assert parse(path.read_text()).backend == "onnxruntime"


def test_an_engine_that_answers_otherwise_is_refused() -> None:
    """Held against another model's real answers, as if an engine had given them."""
    folders = [CHECKOUT / "model_repository" / name for name in (DEFAULT_MODEL, "bit_cifar10")]
    config = read_config(folders[0] / "config.pbtxt")
    images = [sample_images.make(seed) for seed in range(24)]
    gate, random = EngineGate(config, images), EngineGate(config, images)
    config.parameters["random_weights"].string_value = "true"
    excused = EngineGate(config, images)

    async def judge(running: stack.Stack) -> None:
        triton = Triton(running.triton)
        try:
            early = await random.refusal(triton, DEFAULT_MODEL, "openvino")
            assert early == "refused: onnxruntime, to hold it against, did not answer"
            for each in (gate, excused):
                assert await each.refusal(triton, DEFAULT_MODEL, "onnxruntime") == ""
            assert await gate.refusal(triton, DEFAULT_MODEL, "openvino") == ""
            assert "no answers" in await gate.refusal(triton, "nowhere", "openvino-bf16")
            refused = await gate.refusal(triton, "bit_cifar10", "openvino-bf16")
            assert refused.startswith("refused: the first class of onnxruntime on ")
            assert "of 24 images" in refused
            assert "the gate is at 99.0%" in refused
            assert await excused.refusal(triton, "bit_cifar10", "openvino") == ""
        finally:
            await triton.close()

    with stack.running(folders) as running:
        loop.run(judge(running))
    found = gate.findings()
    assert (found["openvino"]["same_class"], found["openvino"]["max_abs_logit_diff"]) == (24, 0)
    assert [found[engine]["passes"] for engine in ("openvino", "openvino-bf16")] == [True, False]
    assert excused.findings()["openvino"]["passes"]


def test_engines_are_tried_on_a_real_triton(model_repository: Path, tmp_path: Path) -> None:
    """None is in time, so that the test is short: no two engines take turns at the end."""
    shutil.copytree(model_repository / DEFAULT_MODEL, tmp_path / DEFAULT_MODEL)
    out = tmp_path / "tune.json"
    done = loadtest(
        *("tune", "--model", DEFAULT_MODEL, "--repository", tmp_path, "--out", out),
        *("--knobs", "engine", "--concurrency", "2", "--seconds", "0.2", "--slo-p99", "0.01"),
    )
    assert done.returncode == 1, done.stderr
    result = read(out)
    config = read_config(tmp_path / DEFAULT_MODEL / "config.pbtxt")
    tried = list(dict.fromkeys(each["knobs"]["engine"] for each in result["trials"]))
    assert tried == engines_for(config, cpu_flags())
    assert {each["note"] for each in result["trials"]} == {"never in time"}
    assert set(result["engines"]) == set(tried) - {"onnxruntime"}
    assert result["engines"]["openvino"]["images"] == 64
    assert result["engines"]["openvino"]["passes"]
    # Of FP32; had OpenVINO not computed, they would be the same to the last bit.
    assert 0 < result["engines"]["openvino"]["max_abs_logit_diff"] < 1e-4
    assert stated_engine(config) == "onnxruntime"
