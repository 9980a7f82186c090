"""Compile a shipped model, run it without and with the chip's physics, and print what it costs."""

import numpy as np

import pcmc
from pcmc.models import zoo

x, y = zoo.test_data("digits-cnn")
program = pcmc.compile("digits-cnn", chip="nature2018")

for physics in ("ideal", "dac,adc", "full"):
    (logits,) = pcmc.Session(program, physics=physics, seed=0).run(None, {"x": x})
    print(f"{physics:8s} {np.mean(logits.argmax(axis=1) == y):.2%} of {len(y)} digits right")

report = program.report()
latency_us, energy_nj = report["latency_s"] * 1e6, report["energy_j"]["total"] * 1e9
print(f"{report['chips']} chip, {latency_us:.2f} us and {energy_nj:.1f} nJ a digit")
