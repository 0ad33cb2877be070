"""What a template is and what makes it trusted. Pure: no clock, no network, no files but the published schemas.

Documents, in the order in which a reader meets them:

``names``, ``problems``, ``reasons``    what things and refusals are called
``strict_json``, ``canonical``          bytes → values without loopholes, values → the one form that is signed
``schemas``, ``shape``, ``fit``         JSON Schema whose cost is bounded; ours, and an author's
``grants``, ``limits``                  rights as values: what covers what, what is left when two agree
``document``, ``convert``               what an author writes, what authors of the earlier system wrote
``inheritance``, ``resolved``           what it becomes together with its parents: what is approved and runs
``capabilities``, ``comparison``        what it can do, and how that differs from before: what reviewers sign and see

Trust: ``charter``, ``approval``, ``plan``, ``acceptance``, ``trusted_set``, ``repository``, ``bundle``.
"""
