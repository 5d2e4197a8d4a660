"""Which changes of a model break whom: pure functions over JSON Schemas, and the file that remembers them.

*Backward*: new consumers cannot read old messages. *Forward*: old consumers cannot read new messages.

``document`` brings a JSON Schema into one form, ``inclusion`` says whether all that one allows is allowed by another,
``changes`` tells what changed between two and in which direction it breaks, ``contract`` adds what a schema does not
hold (version, topic, key), and ``record`` is the file.
"""
