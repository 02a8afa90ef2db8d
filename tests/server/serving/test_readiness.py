"""server/serving/readiness.py: one probe for all who ask, and what it says."""

import asyncio

import pytest

from server.problems import ContractBroken, ModelNotReady
from server.serving import readiness
from server.serving.decoding import Decoding
from server.serving.readiness import Readiness
from tests.server.engines.fakes import FakeEngine, model


def test_many_who_ask_at_once_cost_one_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        engine = FakeEngine(model())
        check = Readiness(engine, Decoding(1, 2**27, 10**6)).check
        models = await asyncio.gather(*(check() for _ in range(50)))
        assert {each.name for each in models} == {"m"}
        assert engine.probes == 1
        monkeypatch.setattr(readiness, "VERDICT_SECONDS", -1.0)
        await check()
        assert engine.probes == 2

    asyncio.run(test())


def test_a_failed_probe_is_the_problem_that_a_request_would_get() -> None:
    async def test() -> None:
        engine = FakeEngine(model())
        engine.problems = [ContractBroken("it answers otherwise")]
        with pytest.raises(ContractBroken, match="it answers otherwise"):
            await Readiness(engine, Decoding(1, 2**27, 10**6)).check()

    asyncio.run(test())


def test_a_default_model_that_is_missing_may_still_come() -> None:
    async def test() -> None:
        engine = FakeEngine(model("other"))
        engine.default = "m"
        with pytest.raises(ModelNotReady, match="default model is missing: there is no model 'm'"):
            await Readiness(engine, Decoding(1, 2**27, 10**6)).check()
        assert engine.probes == 0

    asyncio.run(test())
