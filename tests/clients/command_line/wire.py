"""Bare sockets: what a person or a stranger sends."""

from endpoint import command, equal, read, true


def inline(e):
    """Commands as a person types them; the same bytes as from the engine."""
    k = e.prefix.encode()
    said = [
        b"PING\r\n",
        b"SET " + k + b"a 1\r\n",
        b"get " + k + b"a\n",
        b"\r\n",
        b'SET ' + k + b'b "two words \\x41\\n"\r\n',
        b"GET " + k + b"b\r\n",
        b"SET " + k + b"c 'single \\' quote'\r\n",
        b"GET " + k + b"c\r\n",
        b"  ECHO   spaces   \r\n",
        b"NOSUCH a\r\n",
        b"GET\r\n",
        command("GET", k + b"a"),
        b"*0\r\n",
        b"PING last\r\n",
    ]
    end = b"$4\r\nlast\r\n"
    answers = []
    for direct in (True, False):
        with e.socket(direct) as connection:
            connection.sendall(b"".join(said))
            whole = read(connection, end)
        with e.socket(direct) as connection:
            for byte in b"".join(said):
                connection.send(bytes([byte]))
            equal(read(connection, end), whole, "byte by byte")
        answers.append(whole)
    equal(answers[1], answers[0], "what was answered")


def bad_protocol(e):
    """What is no command: the same answer as from the engine, and the connection ends."""
    for said in (
        b"*-1x\r\n",
        b"*1\r\n+PING\r\n",
        b"*2\r\n$3\r\nGET\r\n$-5\r\n",
        b"*1\r\n$x\r\n",
        b"*99999999999\r\n",
        b'SET a "unbalanced\r\n',
        b"x" * 70_000,
    ):
        answers = []
        for direct in (True, False):
            with e.socket(direct) as connection:
                connection.sendall(said)
                try:
                    answers.append(read(connection, b"<never>"))
                except ConnectionResetError:
                    answers.append(b"<reset>")
        if b"<reset>" not in answers:
            equal(answers[1], answers[0], f"to {said[:40]}")


def order_after_client_list(e):
    """Answers come in the order of the commands, the ones about connections too."""
    for words in (["CLIENT", "LIST"], ["CLIENT", "KILL", "ID", "999999999"]):
        with e.socket() as connection:
            connection.settimeout(1)
            connection.sendall(command(*words) + command("ECHO", "end of it"))
            try:
                got = read(connection, b"$9\r\nend of it\r\n")
            except TimeoutError as error:
                raise AssertionError(f"{words}: the next command was answered first") from error
            true(not got.startswith(b"$9\r\nend"), f"{words} is answered first")


def foreign_protocol(e):
    """A browser that was sent here: its connection ends, and nobody else notices."""
    with e.socket() as other, e.socket() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.settimeout(1)
        try:
            got = read(connection, b"<never>")
        except TimeoutError as error:
            raise AssertionError("the connection stays open") from error
        equal(got, b"<closed>", "the answer")
        other.sendall(command("PING"))
        equal(read(other, b"\r\n"), b"+PONG\r\n", "somebody else's command")


SCENARIOS = [inline, bad_protocol, order_after_client_list, foreign_protocol]
