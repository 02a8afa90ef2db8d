"""The chart's network: who is let in, by which way, and for how long."""

import pytest

from tests.deploy.chart import CASES, OPEN, container, environment, one, render, settings_of
from tests.waiting import CHECKOUT


def test_triton_is_reached_by_gateways_alone() -> None:
    objects = render(OPEN | {"networkPolicy": {"monitoring": []}})
    policy = one(objects, "NetworkPolicy", "triton")["spec"]
    gateways = one(objects, "Deployment", "gateway")["spec"]["selector"]
    assert policy["podSelector"] == one(objects, "Deployment", "triton")["spec"]["selector"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == [{"ports": [{"port": "grpc"}], "from": [{"podSelector": gateways}]}]
    assert policy["egress"] == []
    service = one(objects, "Service", "triton")["spec"]
    assert service["clusterIP"] == "None"
    assert service["selector"] == gateways["matchLabels"] | {
        "app.kubernetes.io/component": "triton"
    }


def test_the_entry_waits_as_long_as_the_gateway_may_take() -> None:
    objects = render(CASES["entry"])
    settings_read = settings_of(environment(one(objects, "Deployment", "gateway")))
    longest = settings_read.read_timeout + settings_read.longest_request
    route, ingress = one(objects, "HTTPRoute", "gateway"), one(objects, "Ingress", "gateway")
    assert int(route["spec"]["rules"][0]["timeouts"]["request"].rstrip("s")) > longest
    notes = ingress["metadata"]["annotations"]
    nginx = "nginx.ingress.kubernetes.io/proxy"
    assert int(notes[f"{nginx}-read-timeout"]) > longest
    assert int(notes[f"{nginx}-body-size"]) == settings_read.max_body_bytes
    assert notes["cert-manager.io/cluster-issuer"] == "acme"
    assert ingress["spec"]["tls"] == [{"hosts": ["mixer.example.org"], "secretName": "mixer-tls"}]


def test_the_gateway_speaks_tls_and_all_that_ask_it_know() -> None:
    objects = render(CASES["tls"])
    deployment = one(objects, "Deployment", "gateway")
    found = settings_of(environment(deployment))
    assert (str(found.tls_cert), str(found.tls_key)) == ("/tls/tls.crt", "/tls/tls.key")
    started = container(deployment)
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        assert started[probe]["httpGet"]["scheme"] == "HTTPS"
    (port,) = one(objects, "Service", "gateway")["spec"]["ports"]
    assert port["appProtocol"] == "https"
    notes = one(objects, "Ingress", "gateway")["metadata"]["annotations"]
    assert notes["nginx.ingress.kubernetes.io/backend-protocol"] == "HTTPS"
    (endpoint,) = one(objects, "ServiceMonitor", "gateway")["spec"]["endpoints"]
    assert endpoint["scheme"] == "https"
    assert "scheme" not in one(objects, "ServiceMonitor", "triton")["spec"]["endpoints"][0]
    assert one(objects, "Pod", "test")["spec"]["containers"][0]["args"][0].startswith("https://")


@pytest.mark.parametrize("case", ["values", "keys"])
def test_helm_test_is_let_in_and_knows_whether_keys_are_asked_for(case: str) -> None:
    objects = render(CASES[case])
    pod = one(objects, "Pod", "test")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    url, keys = pod["spec"]["containers"][0]["args"]
    gateway = one(objects, "Service", "gateway")
    (port,) = gateway["spec"]["ports"]
    assert url == f"http://{gateway['metadata']['name']}:{port['port']}"
    assert keys == ("closed" if case == "keys" else "open")
    let_in = one(objects, "NetworkPolicy", "gateway")["spec"]["ingress"][0]["from"]
    labels = pod["metadata"]["labels"].items()
    assert any(
        peer.get("podSelector", {}).get("matchLabels", {"": ""}).items() <= labels
        for peer in let_in
        if "namespaceSelector" not in peer
    )
    assert (CHECKOUT / "deploy/gateway" / pod["spec"]["containers"][0]["command"][-1]).is_file()
