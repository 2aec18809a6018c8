"""Emulated hosts of SPARC M10/M12: their service processors (XSCF) and control domains (`ldm`).

Built from the manuals, never seen beside a real machine. One process holds one `World` and serves
every address of it; `python -m standfast.lab.emulators --world world.json --control PATH.sock`.

    model, world, migration, spconfig   the model: pure, time is an input
    dialect + dialects/*.toml           every text that a session prints, as data
    terminal, sessions, servers         ssh sessions
    xscf, ldm, shell                    what can be typed there
    faults, log, machines, driver       trouble on demand, the record, the real nodes behind domains
    control, controlserver              tests and the demo steer the process through these
"""
