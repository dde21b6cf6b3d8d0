"""Reports for auditors: frameworks as data (`framework`, `frameworks/*.toml`) and the printed page (`page`)."""
