"""The server's HTTP side, with jobs that only copy: uploads of every form, limits, refusals, and that nothing is left."""

import io
import re
import socket
import threading
import time

import pytest

from medjax.serve import web
from medjax.serve.limits import Limits
from tests.serving import NIFTI, Client, Copies, form, serving, until

SMALL = Limits(upload=4000, stored=1 << 20, header=0.4, idle=0.4, waiting=2)
SCAN = NIFTI + bytes(range(256)) * 8


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(web, "LINGER", 0.3)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("server"), Limits(upload=4000, stored=1 << 20)) as one:
        yield one


@pytest.fixture
def small(tmp_path):
    with serving(tmp_path, SMALL) as one:
        yield one


def head(*lines: str, path: str = "/jobs") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""]).encode()


def status(answer: bytes) -> int:
    found = re.match(rb"HTTP/1\.[01] (\d{3}) ", answer)
    return int(found[1]) if found else 0


@pytest.mark.parametrize("how", ["bare", "form", "chunks", "chunks of a form"])
def test_an_upload_becomes_a_job_whose_result_is_downloaded_once(client, how):
    body, headers = form(SCAN) if "form" in how else (SCAN, {})
    if "chunks" in how:
        body = iter([body[:1], body[1:50], body[50:]])
    posted = client.ask("POST", "/jobs", body, headers, encode_chunked="chunks" in how)
    assert posted.status == 202
    place = posted.headers["Location"]
    assert place == f"/jobs/{posted.json['id']}"
    state = client.wait(posted.json["id"])
    assert (state["status"], state["name"], state["bytes"]) == ("done", "result.nii", len(SCAN))
    assert [path.name for path in client.files()] == ["result.nii"]
    got = client.ask("GET", state["result"])
    assert (got.status, got.body) == (200, SCAN)
    assert got.headers["Content-Disposition"] == 'attachment; filename="result.nii"'
    assert got.headers["Cache-Control"] == "no-store"
    assert client.is_empty()
    for path in (state["result"], place):
        assert client.ask("GET", path).status == 404


@pytest.mark.parametrize("name", ['a"b.nii', "../../x.nii", "--XX"])
def test_a_form_is_read_whatever_its_file_is_called_and_holds(client, name):
    contents = SCAN + b"\r\n--X\r\n--XY--\r\n\r\n"
    body, headers = form(contents, name, b'--XX\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n')
    answer = client.ask("POST", "/apply", body, headers)
    assert (answer.status, answer.body) == (200, contents)


def test_apply_answers_with_the_result_and_nothing_stays(client):
    answer = client.ask("POST", "/apply", SCAN)
    assert (answer.status, answer.body, answer.headers["Content-Type"]) == (200, SCAN, "application/octet-stream")
    assert client.is_empty()


def test_what_fails_is_one_line(tmp_path):
    with serving(tmp_path, engine=Copies(error="upload: damaged; copy it again")) as client:
        answer = client.ask("POST", "/apply", SCAN)
        assert (answer.status, answer.error) == (422, "upload: damaged; copy it again")
        name = client.ask("POST", "/jobs", SCAN).json["id"]
        assert client.wait(name)["error"] == "upload: damaged; copy it again"
        assert client.ask("GET", f"/jobs/{name}/result").status == 422
        assert client.files() == []


@pytest.mark.parametrize(("lines", "expected", "says"), [
    (["Content-Length: 4001"], 413, "larger than"), (["Content-Length: 99999999999999"], 413, "larger than"),
    ([], 411, "Content-Length"), (["Content-Length: -1"], 400, "no number"), (["Content-Length: 5, 6"], 400, "no number"),
    (["Content-Length: 5", "Content-Length: 6"], 400, "no number"), (["Content-Length: ٣"], 400, "no number"),
    (["Content-Length: 5", "Transfer-Encoding: chunked"], 400, "alone"),
    (["Transfer-Encoding: gzip, chunked"], 400, "alone"),
    (["Content-Length: 5", "Content-Encoding: gzip"], 415, "as it is"),
    (["Content-Type: multipart/form-data", "Content-Length: 5"], 400, "boundary"),
    (["Host: 127.0.0.1", "Content-Length: 5"], 421, "Host"),
    (["Expect: 100-continue", "Content-Length: 4001"], 413, "larger than"),
], ids=str)
def test_a_head_that_is_not_taken_is_answered_before_any_body(client, lines, expected, says):
    answer = client.raw(head(*lines))
    assert status(answer) == expected, answer
    assert says.encode() in answer
    assert b"100 Continue" not in answer
    assert client.is_empty()


@pytest.mark.parametrize("pieces", [
    [b"FA0\r\n" + bytes(4000) + b"\r\n", b"1\r\n0\r\n"], [b"fffffff\r\n" + NIFTI + bytes(9000)]], ids=["many", "one"])
def test_chunks_are_counted_as_they_come(client, pieces):
    pieces[0] = pieces[0].replace(bytes(352), NIFTI, 1)
    answer = client.raw(head("Transfer-Encoding: chunked") + b"".join(pieces))
    assert status(answer) == 413
    assert client.is_empty()


def test_a_client_that_asks_first_is_told_to_go_on(client):
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        connection.sendall(head("Expect: 100-continue", f"Content-Length: {len(SCAN)}", path="/apply"))
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(SCAN)
        assert status(connection.recv(1000)) == 200


@pytest.mark.parametrize("body", [
    b"zz\r\n", b"5\r\nabcdefg", b"5;" + b"x" * 5000, b"-1\r\n", b"0x5\r\nabcde\r\n", b"\r\n", b"5\nabcde\n"], ids=repr)
def test_chunks_that_are_none_are_refused(client, body):
    assert status(client.raw(head("Transfer-Encoding: chunked") + body, end=True)) == 400


@pytest.mark.parametrize("body", [
    b"", b"--XX--\r\n", b"--XX\r\n\r\nabc", b"no boundary", b"--XX\r\n" + b"h" * 9000, b"x" * 70000,
    b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + SCAN,
    b'--XX\r\nContent-Disposition: form-data; name="file"; filename=""\r\n\r\n\r\n--XX--\r\n'], ids=len)
def test_forms_without_a_whole_file_are_refused(tmp_path, body):
    with serving(tmp_path, Limits(upload=100000)) as client:
        answer = client.ask("POST", "/jobs", body, {"Content-Type": "multipart/form-data; boundary=XX"})
        assert (answer.status, answer.error[:8] in ("the form", "the head", "the uplo", "the body")) == (400, True)
        assert client.is_empty()


def test_a_body_that_ends_early_is_refused_and_its_place_is_free(client):
    answer = client.raw(head("Content-Length: 3000") + SCAN[:2000], end=True)
    assert (status(answer), b"1000 bytes before" in answer, client.is_empty()) == (400, True, True)


def test_a_body_longer_than_said_is_cut_and_no_second_request_is_made_of_it(client):
    answer = client.raw(head(f"Content-Length: {len(SCAN)}") + SCAN + b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert status(answer) == 202
    assert client.ask("DELETE", re.search(rb"Location: (\S+)", answer)[1].decode()).status == 204


@pytest.mark.parametrize(("contents", "expected"), [(b"", 400), (b"x" * 400, 415), (b"PK", 415), (b"<html>" * 300, 415)])
def test_what_is_no_scan_is_refused(client, contents, expected):
    assert client.ask("POST", "/jobs", contents).status == expected
    assert client.is_empty()


def test_an_unknown_kind_is_refused_at_its_beginning(client):
    """The answer comes while most of the body is not sent."""
    assert status(client.raw(head("Content-Length: 3000") + b"x" * 400)) == 415


@pytest.mark.parametrize("slowly", ["nothing", "head", "body", "chunk"])
def test_slow_clients_are_left(small, slowly):
    """A byte now and then keeps a connection that has a time limit for each byte alone."""
    sent = {"nothing": b"", "head": b"POST /jobs HT", "body": head("Content-Length: 3000") + SCAN[:400],
            "chunk": head("Transfer-Encoding: chunked") + b"500\r\n"}[slowly]
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", small.port), timeout=10) as connection:
        connection.sendall(sent)
        connection.settimeout(0.1)
        answer = b""
        while time.monotonic() - begin < 5:
            try:
                piece = connection.recv(1000)
                if not piece:
                    break
                answer += piece
            except TimeoutError:
                if slowly != "nothing":
                    connection.sendall(b"1")
            except OSError:
                break
    assert time.monotonic() - begin < 3
    assert status(answer) == (408 if slowly in ("body", "chunk") else 0)
    assert small.is_empty()


def test_a_full_queue_is_said_with_when_to_come_again(small):
    small.engine.held.set()
    first = small.ask("POST", "/jobs", SCAN).json["id"]
    until(lambda: small.engine.seen)
    others = [small.ask("POST", "/jobs", SCAN).json for _ in range(2)]
    assert [small.ask("GET", f"/jobs/{job['id']}").json["ahead"] for job in others] == [0, 1]
    answer = small.ask("POST", "/jobs", SCAN)
    assert (answer.status, answer.headers["Retry-After"].isdecimal()) == (503, True)
    small.engine.held.clear()
    for name in (first, *(job["id"] for job in others)):
        small.wait(name)
    assert small.ask("POST", "/jobs", SCAN).status == 202


def test_memory_for_uploads_and_results_is_bounded(tmp_path):
    with serving(tmp_path, Limits(upload=4000, stored=2 * len(SCAN))) as client:
        names = [client.ask("POST", "/jobs", SCAN).json["id"] for _ in range(2)]
        for name in names:
            client.wait(name)
        for headers, body in (({}, SCAN), ({}, iter([SCAN]))):
            answer = client.ask("POST", "/jobs", body, headers)
            assert (answer.status, answer.headers["Retry-After"] is not None) == (503, True)
        client.ask("GET", f"/jobs/{names[0]}/result")
        until(lambda: client.ask("POST", "/jobs", SCAN).status == 202, 5)


def test_jobs_are_deleted_while_they_wait_run_and_when_they_are_done(small):
    small.engine.held.set()
    running, waiting = (small.ask("POST", "/jobs", SCAN).json["id"] for _ in range(2))
    until(lambda: small.engine.seen)
    assert small.ask("GET", f"/jobs/{running}").json["fraction"] == 0.5
    assert small.ask("GET", f"/jobs/{running}/result").status == 409
    for name in (waiting, running):
        assert small.ask("DELETE", f"/jobs/{name}").status == 204
        assert small.ask("GET", f"/jobs/{name}").status == 404
    assert small.is_empty()
    assert len(small.engine.seen) == 1
    small.engine.held.clear()
    done = small.ask("POST", "/jobs", SCAN).json["id"]
    small.wait(done)
    assert small.ask("DELETE", f"/jobs/{done}").status == 204
    assert small.is_empty()


def test_a_client_that_goes_away_takes_its_job_along(small):
    small.engine.held.set()
    with socket.create_connection(("127.0.0.1", small.port)) as connection:
        connection.sendall(head(f"Content-Length: {len(SCAN)}", path="/apply") + SCAN)
        (job,) = until(lambda: small.engine.seen)
    assert job.cancelled.wait(5)
    assert small.is_empty()


def test_results_expire(tmp_path):
    with serving(tmp_path, Limits(keep=0.2)) as client:
        name = client.ask("POST", "/jobs", SCAN).json["id"]
        client.wait(name)
        until(lambda: client.ask("GET", f"/jobs/{name}").status == 404, 5)
        assert client.is_empty()


def test_a_download_that_breaks_off_can_be_repeated(tmp_path):
    with serving(tmp_path) as client:
        large = NIFTI + bytes(8 << 20)
        name = client.ask("POST", "/jobs", large).json["id"]
        client.wait(name)
        with socket.create_connection(("127.0.0.1", client.port)) as connection:
            connection.sendall(f"GET /jobs/{name}/result HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            connection.recv(1000)
        assert client.ask("GET", f"/jobs/{name}/result").body == large
        assert client.is_empty()


@pytest.mark.parametrize(("method", "path", "headers", "expected"), [
    ("GET", "/", {"Host": "evil.example"}, 421), ("GET", "/", {"Host": "127.0.0.1.evil.example:80"}, 421),
    ("GET", "/", {"Host": ""}, 421), ("GET", "/", {"Host": "LOCALHOST:1234"}, 200),
    ("POST", "/jobs", {"Origin": "http://evil.example"}, 403), ("POST", "/jobs", {"Origin": "null"}, 403),
    ("POST", "/jobs", {"Sec-Fetch-Site": "cross-site"}, 403), ("POST", "/jobs", {"Sec-Fetch-Site": "same-site"}, 403),
    ("POST", "/jobs", {"Origin": "http://localhost:99", "Host": "localhost:99", "Sec-Fetch-Site": "same-origin"}, 202),
    ("GET", "/", {"Sec-Fetch-Site": "cross-site"}, 200), ("GET", "/../../etc/passwd", {}, 404),
    ("GET", "/jobs/..%2f..", {}, 404), ("GET", "/jobs", {}, 404), ("PUT", "/jobs", {}, 501), ("TRACE", "/", {}, 501)])
def test_who_may_ask_for_what(client, method, path, headers, expected):
    answer = client.ask(method, path, SCAN if method == "POST" else None, headers)
    assert answer.status == expected
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


def test_a_token_is_asked_for_except_by_the_page(tmp_path):
    with serving(tmp_path, token="a-long-enough-token") as client:
        assert client.ask("GET", "/").status == 200
        for given in (None, "Bearer", "Bearer a-long-enough-tokem", "Basic a-long-enough-token", "Bearer ä"):
            headers = {} if given is None else {"Authorization": given}
            for method, path in (("POST", "/jobs"), ("POST", "/apply"), ("GET", "/jobs/" + "x" * 22), ("DELETE", "/jobs/x")):
                answer = client.ask(method, path, SCAN if method == "POST" else None, headers)
                assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        right = {"Authorization": "Bearer a-long-enough-token"}
        assert client.ask("POST", "/apply", SCAN, right).body == SCAN


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
                                  b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n",
                                  b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", b"GET / HTTP/1.1\r\n\r\n"], ids=len)
def test_what_is_no_request_ends_in_an_answer(client, sent):
    assert status(client.raw(sent, end=True)) in (0, 400, 414, 421, 431, 505)
    assert client.ask("GET", "/").status == 200


def test_connections_are_bounded(tmp_path):
    with serving(tmp_path, Limits(connections=3)) as client:
        held = [socket.create_connection(("127.0.0.1", client.port)) for _ in range(3)]
        assert status(client.raw(b"")) == 503
        for connection in held:
            connection.close()
        until(lambda: status(client.raw(head())) == 411)


def test_the_log_says_nothing_of_the_file_or_the_client(tmp_path, monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr("sys.stderr", said)
    with serving(tmp_path, engine=Copies(error="upload: its PatientName is DOE^JOHN")) as client:
        body, headers = form(SCAN, "DOE_JOHN.nii.gz")
        client.ask("POST", "/apply", body, {**headers, "User-Agent": "DOE"})
        client.ask("GET", "/jobs/DOE_JOHN?name=DOE", headers={"Host": "DOE"})
        client.ask("POST", "/jobs", b"DOE" * 300)
    lines = [re.sub(r"^\S+ \S+ (-|\S{8}) ", "", line) for line in said.getvalue().splitlines()]
    assert re.fullmatch(r"failed after \d\.\d s: UserError at infer/fit.py:1", lines.pop(2))
    assert lines == [f"queued: nii, {len(body)} bytes", "running", "refused: Misdirected Request",
                     "refused: Unsupported Media Type"]
    assert "DOE" not in said.getvalue()


def test_fifty_at_once_get_what_is_theirs_or_are_told_to_come_again(tmp_path):
    answers = {}

    def one(client: Client, number: int) -> None:
        contents = SCAN + bytes([number]) * number if number % 2 else b"x" * 400 if number % 4 else SCAN + bytes(4000)
        while (answer := client.ask("POST", "/apply", contents)).status == 503:
            assert int(answer.headers["Retry-After"]) >= 1
            time.sleep(0.05)
        answers[number] = (answer.status, answer.body == contents)

    with serving(tmp_path, Limits(upload=4000, stored=1 << 20, waiting=3)) as client:
        threads = [threading.Thread(target=one, args=(client, number)) for number in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.is_empty()
    assert answers == {number: (200, True) if number % 2 else (415, False) if number % 4 else (413, False)
                       for number in range(50)}
