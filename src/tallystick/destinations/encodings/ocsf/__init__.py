"""`ocsf`: events of the Open Cybersecurity Schema Framework (schema.ocsf.io), in one of three of its versions.

words.py      the words of an action, and the operation that they name
kinds.py      what a target is: a user, a group, a file, …
products.py   product and vendor behind a mapping
schema.py     the classes that are used, with their activities and attributes in each version
classify.py   which class an event is of
objects.py    an actor, an endpoint, a resource in OCSF's form
encode.py     the whole event
"""

from tallystick.destinations.encodings.ocsf.encode import OcsfEvents, make

__all__ = ["OcsfEvents", "make"]
