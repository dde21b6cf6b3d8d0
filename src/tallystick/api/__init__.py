"""The HTTP API behind the intake's listener: reading, evidence, management. One module a subject; `edge` is where every request enters."""
