"""
The HTTP/1.1 client: raw non-blocking sockets, memoised response heads, everything else through httptools.

Knows requests, answers, connections and their failures; nothing of users, profiles or assignments.
"""
