"""
The demo shop: a small HTTP target to point a first simulation at.

Run it with `python -m trafficsim_runner.demo`. It shares its machine with the load, so it is an `asyncio.Protocol` on
httptools and nothing else. It keeps its own account of what it received, which tests compare with the client's. It
imports nothing of the engine: a target that shared code with the client would agree with its mistakes.
"""
