"""``jaxcls describe``: the memory of each device."""

import json

from jaxcls.cli.main import main


def test_describe_says_what_each_device_holds(capsys):
    options = ["--task", "csv", "--model", "mlp", "--batch-size", "31", "--mesh", "fsdp=2", "--json"]
    assert main(["describe", *options]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["mesh"] == {"data": 1, "fsdp": 2}
    for name in ("parameters", "optimizer state", "batch"):
        assert described["undivided"][name] / 2 <= described["bytes"][name] < 0.6 * described["undivided"][name]
    assert described["bytes"]["activations and gradients"] > 0


def test_a_mesh_of_other_devices_than_there_are_is_refused(capsys):
    # In a process of its own, they would be simulated.
    assert main(["describe", "--task", "csv", "--mesh", "data=4,fsdp=2"]) == 2
    assert "is of 8 devices, and there are 2" in capsys.readouterr().err
