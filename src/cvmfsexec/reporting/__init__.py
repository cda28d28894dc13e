"""What file servers have counted, made into something to look at.

``rates`` turns counts into what happened between two moments, ``history`` puts the
moments of a job together, ``plots`` and ``page`` draw them.
"""
