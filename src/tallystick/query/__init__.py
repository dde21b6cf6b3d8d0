"""Search: one grammar, its streaming and its SQL form, and the engine that runs it over archive and hot part."""
