"""What a machine lacks, said in one sentence."""


class Unavailable(Exception):
    """Say why this machine cannot give a test what it asks for; a test skips with the text."""
