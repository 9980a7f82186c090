"""The shipped chip descriptions, one TOML file a chip; `pcmc.accel.chip.load_chip` reads them."""
