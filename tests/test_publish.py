"Publishing to a real S3 server on the loopback, through a proxy that breaks things; to folders and archives; to a stand-in of the hub"
import base64, hashlib, http.client, json, os, re, shutil, signal, subprocess, sys, threading, time, warnings, zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from safetensors.numpy import save_file

from squad_nb.core import DataError, ModelError, OutputError, SettingError, SquadNbError, write_json
from squad_nb.publish import CARD, MANIFEST, PICKLES, address, entry, fetch, is_own_card, listed, model_card, publish, redacted

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


def tree(folder): return {p.relative_to(folder).as_posix(): entry(p) for p in Path(folder).rglob("*") if p.is_file()}


@pytest.fixture
def model(tmp_path):
    "A folder with the files of a model and what a training leaves"
    return make_model(tmp_path/"run")


def make_model(folder, megabytes=0.2):
    folder.mkdir()
    save_file({"weight": np.random.default_rng(0).random(int(megabytes*2**17))}, folder/"model.safetensors")
    write_json(folder/"config.json", dict(model_type="bert", squad_nb=dict(track="extractive", max_length=384, stride=128)))
    for name in ("tokenizer.json", "tokenizer_config.json"): write_json(folder/name, {"of": name})
    write_json(folder/"run.json", dict(track="extractive", model="/data/somewhere/bert", questions=100, settings=dict(stride=128), training=dict(seed=0), scores=dict(exact_match=50.0, f1=60.0, total=10)))
    (folder/"training_args.bin").write_bytes(b"\x80\x04.")
    (folder/"checkpoint-10").mkdir()
    (folder/"checkpoint-10/optimizer.pt").write_bytes(b"\x80\x04.")
    (folder/".env").write_text("AWS_SECRET_ACCESS_KEY=" + SECRET)
    return folder


SENT = {"README.md", "config.json", "model.safetensors", "run.json", "tokenizer.json", "tokenizer_config.json"}


# S3: moto's server, and a proxy before it that can break things

class Proxy(ThreadingHTTPServer):
    "Passes requests on, but for those that a fault wants: (pattern of method and path, what happens, how often)"
    daemon_threads = True

    def __init__(self, target):
        super().__init__(("127.0.0.1", 0), Relay)
        self.target, self.faults, self.seen, self.lock, self.flying, self.peak = target, [], [], threading.Lock(), 0, 0
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def fault(self, line):
        with self.lock:
            self.seen.append(line)
            for i, (pattern, what, times) in enumerate(self.faults):
                if times and re.search(pattern, line):
                    self.faults[i] = (pattern, what, times - 1)
                    return what

    def handle_error(self, request, client_address): pass  # a cut connection is wanted here


class Relay(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *args): pass

    def do(self):
        what, size = self.server.fault(f"{self.command} {self.path}"), int(self.headers.get("Content-Length") or 0)
        if what == "cut":
            self.rfile.read(min(size, 1000))
            return self.hang_up()
        if self.headers.get("Expect", "").lower() == "100-continue" and size == 0: self.send_response_only(100)
        body = self.rfile.read(size) if "chunked" not in self.headers.get("Transfer-Encoding", "") else self.chunks()
        if what in ("500", "503"): return self.answer(int(what), {}, b"<Error><Code>InternalError</Code><Message>We encountered an internal error</Message></Error>")
        if what == "slow":
            with self.server.lock:
                self.server.flying += 1
                self.server.peak = max(self.server.peak, self.server.flying)
            time.sleep(0.3)
            with self.server.lock: self.server.flying -= 1
        if what == "stop": os.kill(os.getpid(), signal.SIGINT)
        upstream = http.client.HTTPConnection(*self.server.target)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("transfer-encoding", "expect", "content-length")}
        upstream.request(self.command, self.path, body, headers | ({"Content-Length": str(len(body))} if body or self.command in ("PUT", "POST") else {}))
        response = upstream.getresponse()
        data, headers = response.read(), {k: v for k, v in response.getheaders() if k.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server")}
        if what == "damage": data, headers = bytes([data[0] ^ 1]) + data[1:], {k: v for k, v in headers.items() if "checksum" not in k.lower()}
        self.answer(response.status, headers, data, half=what == "half", length=response.getheader("Content-Length"))

    def chunks(self):
        parts = []
        while n := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(n))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, status, headers, data, half=False, length=None):
        self.send_response(status)
        for k, v in headers.items(): self.send_header(k, v)
        self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(data)))
        self.end_headers()
        if self.command != "HEAD": self.wfile.write(data[:len(data)//2] if half else data)
        if half: self.hang_up()

    def hang_up(self):
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(2)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do


@pytest.fixture(scope="module")
def server():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture
def s3(server, monkeypatch):
    "The proxy before an empty S3; keys in the environment, where a user has them"
    proxy = Proxy(server)
    for name, value in dict(AWS_ENDPOINT_URL=f"http://127.0.0.1:{proxy.server_address[1]}", AWS_ACCESS_KEY_ID="AKIAIOSFODNN7EXAMPLE", AWS_SECRET_ACCESS_KEY=SECRET, AWS_DEFAULT_REGION="us-east-1",
                            AWS_EC2_METADATA_DISABLED="true", AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull).items(): monkeypatch.setenv(name, value)
    proxy.client = boto3.client("s3", endpoint_url="http://{}:{}".format(*server))
    connection = http.client.HTTPConnection(*server)
    connection.request("POST", "/moto-api/reset")
    assert connection.getresponse().status == 200
    proxy.client.create_bucket(Bucket="models")
    yield proxy
    proxy.shutdown()
    proxy.server_close()


FAST = dict(tries=3, wait=0.01, progress=False)


def objects(s3, bucket="models"): return {o["Key"]: o["Size"] for o in s3.client.list_objects_v2(Bucket=bucket).get("Contents", [])}


def test_there_and_back(s3, model, tmp_path):
    sent = publish(model, "s3://models/a/reader", **FAST)
    assert {*sent.files} == SENT and {*sent.states.values()} == {"sent"} and "training_args.bin" in sent.left_out and ".env" in sent.left_out
    assert {*objects(s3)} == {f"a/reader/{name}" for name in SENT | {MANIFEST}}
    assert {*listed("s3://models/a/reader").states.values()} == {"there"}
    got = fetch("s3://models/a/reader", tmp_path/"new/back", **FAST)
    assert {*got.files} == SENT and (tmp_path/"new/back/model.safetensors").read_bytes() == (model/"model.safetensors").read_bytes()
    assert [p.name for p in (tmp_path/"new").iterdir()] == ["back"]
    assert {*publish(tmp_path/"new/back", "s3://models/b", **FAST).files} == SENT  # what was fetched can be handed on


def test_what_is_there_is_not_sent_again(s3, model):
    publish(model, "s3://models/reader", **FAST)
    s3.seen.clear()
    assert {*publish(model, "s3://models/reader", **FAST).states.values()} == {"was there"}
    assert not [line for line in s3.seen if line.startswith(("PUT", "POST"))] and not [line for line in s3.seen if line.startswith("GET") and "model.safetensors" in line]  # its tag is known
    write_json(model/"config.json", dict(model_type="bert", changed=True))
    (model/"run.json").unlink()
    changed = publish(model, "s3://models/reader", **FAST)
    assert [name for name, state in changed.states.items() if state == "sent"] == ["README.md", "config.json"]
    assert "reader/run.json" not in objects(s3)  # ours, and no part of it any more


def test_same_size_other_bytes_are_found(s3, model, tmp_path):
    publish(model, "s3://models/reader", **FAST)
    s3.client.put_object(Bucket="models", Key="reader/model.safetensors", Body=bytes(entry(model/"model.safetensors")["size"]))
    with pytest.raises(DataError, match="model.safetensors is not what was published"): fetch("s3://models/reader", tmp_path/"back", **FAST)
    assert not (tmp_path/"back").exists() and not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    assert publish(model, "s3://models/reader", **FAST).states["model.safetensors"] == "sent"
    s3.client.delete_object(Bucket="models", Key="reader/config.json")
    assert listed("s3://models/reader").states["config.json"] == "missing"
    with pytest.raises(DataError, match="lacks config.json"): fetch("s3://models/reader", tmp_path/"back", **FAST)


def test_a_file_of_several_parts(s3, tmp_path, monkeypatch):
    "Of 5 MiB each, the smallest that S3 takes; by itself s3fs begins at 50"
    monkeypatch.setattr("s3fs.core.calculate_chunksize", lambda size, chunksize=None, **more: chunksize or 5*2**20)
    large, more = make_model(tmp_path/"run", megabytes=11), FAST | dict(options=dict(default_block_size=5*2**20))
    s3.faults = [("PUT .*partNumber=2", "500", 1), ("PUT .*partNumber=1", "cut", 1)]
    publish(large, "s3://models/large", **more)
    assert {re.search(r"partNumber=(\d+)", line)[1] for line in s3.seen if "partNumber" in line} == {"1", "2", "3"} and [times for *_, times in s3.faults] == [0, 0]
    s3.faults, s3.seen[:] = [("GET .*model.safetensors", "half", 1)], []
    fetch("s3://models/large", tmp_path/"back", **more)
    assert entry(tmp_path/"back/model.safetensors") == entry(large/"model.safetensors") and sum("GET /models/large/model.safetensors" in line for line in s3.seen) >= 4
    s3.faults = [("PUT .*partNumber=2", "500", 99)]
    with pytest.raises(OutputError): publish(large, "s3://models/other", tries=1, progress=False)
    assert not s3.client.list_multipart_uploads(Bucket="models").get("Uploads")  # nothing that costs money is left
    with pytest.raises(DataError, match="not whole"): fetch("s3://models/other", tmp_path/"half", **FAST)


def test_files_are_sent_and_fetched_side_by_side(s3, model, tmp_path, capsys):
    s3.faults = [("PUT .*(token|run|model.safe|README)", "slow", 99)]
    publish(model, "s3://models/reader", tries=1, progress=True)
    assert s3.peak >= 2 and "sending" in capsys.readouterr().err
    s3.peak, s3.faults = 0, [("GET .*(token|run|model.safe|README)", "slow", 99)]
    fetch("s3://models/reader", tmp_path/"back", **FAST)
    assert s3.peak >= 2 and capsys.readouterr().err == ""


@pytest.mark.parametrize("fault", [("PUT .*config.json", "500"), ("PUT .*model.safetensors", "cut"), ("GET .*run.json", "half"), ("GET .*list-type", "503"), ("HEAD .*tokenizer", "500"), ("GET .*manifest", "cut")], ids="{0[0]} {0[1]}".format)
def test_what_passes_is_tried_again(s3, model, tmp_path, fault):
    s3.faults = [(*fault, 1)]
    publish(model, "s3://models/reader", **FAST)
    s3.faults.append((*fault, 1))
    fetch("s3://models/reader", tmp_path/"back", **FAST)
    assert any(times == 0 for *_, times in s3.faults)
    assert tree(tmp_path/"back").keys() == SENT | {MANIFEST}


@pytest.mark.parametrize("what", ["500", "cut"])
def test_what_does_not_pass_is_said(s3, model, tmp_path, what):
    s3.faults = [("PUT .*model.safetensors", what, 99)]
    with pytest.raises(OutputError, match="s3://models/reader"): publish(model, "s3://models/reader", tries=1, progress=False)
    with pytest.raises(DataError, match="not whole"): listed("s3://models/reader")
    s3.faults = []
    assert {*publish(model, "s3://models/reader", **FAST).states.values()} <= {"sent", "was there"}  # goes on without --force
    s3.faults = [("GET .*model.safetensors", what, 99)]
    with pytest.raises(OutputError, match="s3://models/reader"): fetch("s3://models/reader", tmp_path/"back", tries=1, progress=False)
    assert not (tmp_path/"back").exists()


def test_damage_on_the_way_is_found(s3, model, tmp_path):
    publish(model, "s3://models/reader", **FAST)
    s3.faults = [("GET .*model.safetensors", "damage", 99)]
    with pytest.raises(DataError, match="model.safetensors is not what was published"): fetch("s3://models/reader", tmp_path/"back", **FAST)
    with pytest.raises(DataError, match="model.safetensors is not there as it was sent"): publish(model, "s3://models/other", **FAST)


def test_a_bucket_is_made_when_asked(s3, model, monkeypatch):
    with pytest.raises(OutputError, match="no bucket fresh.*--create"): publish(model, "s3://fresh/reader", **FAST)
    publish(model, "s3://fresh/reader", create=True, **FAST)
    assert objects(s3, "fresh").keys() == {f"reader/{name}" for name in SENT | {MANIFEST}}
    with pytest.raises(OutputError, match="--create"): publish(model, "s3://fresh2/reader.zip", **FAST)
    publish(model, "s3://fresh2/reader.zip", create=True, **FAST)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    publish(model, "s3://fresh3/reader", create=True, **FAST)
    assert s3.client.get_bucket_location(Bucket="fresh3")["LocationConstraint"] == "eu-central-1"
    s3.client.put_object(Bucket="models", Key="folder/")  # as consoles make folders
    publish(model, "s3://models/folder", **FAST)


def test_other_things_stay(s3, model, tmp_path):
    s3.client.put_object(Bucket="models", Key="reader/config.json", Body=b"another's")
    s3.client.put_object(Bucket="models", Key="reader/diary.txt", Body=b"dear diary")
    s3.client.put_object(Bucket="models", Key="reader/README.md", Body=b"# by hand")
    with pytest.raises(OutputError, match="holds other things, such as config.json.*--force"): publish(model, "s3://models/reader", **FAST)
    assert {*objects(s3)} == {"reader/config.json", "reader/diary.txt", "reader/README.md"}
    sent = publish(model, "s3://models/reader", force=True, **FAST)
    read = lambda key: s3.client.get_object(Bucket="models", Key=f"reader/{key}")["Body"].read()
    assert read("diary.txt") == b"dear diary" and read("README.md") == b"# by hand" and "by hand" in sent.notes[0] and CARD not in sent.files
    publish(model, "s3://models/reader", **FAST)  # ours now, and still theirs
    assert read("README.md") == b"# by hand"


def test_an_archive_in_a_bucket(s3, model, tmp_path):
    publish(model, "s3://models/a/reader.zip", **FAST)
    assert [*objects(s3)] == ["a/reader.zip"]
    assert {*publish(model, "s3://models/a/reader.zip", **FAST).states.values()} == {"was there"}
    assert {*listed("s3://models/a/reader.zip").states.values()} == {"there"}
    fetch("s3://models/a/reader.zip", tmp_path/"back", **FAST)
    assert tree(tmp_path/"back").keys() == SENT | {MANIFEST}
    write_json(model/"config.json", dict(model_type="other"))
    with pytest.raises(OutputError, match="--force"): publish(model, "s3://models/a/reader.zip", **FAST)
    s3.faults = [("GET .*reader.zip", "half", 99)]
    with pytest.raises(OutputError): fetch("s3://models/a/reader.zip", tmp_path/"again", tries=1, progress=False)
    assert not (tmp_path/"again").exists()


def test_wrong_keys(server, s3, model, tmp_path, monkeypatch):
    publish(model, "s3://models/reader", **FAST)
    connection = http.client.HTTPConnection(*server)
    connection.request("POST", "/moto-api/reset-auth", b"0")  # from here on keys are checked
    assert connection.getresponse().status == 200
    try:
        for do in (lambda: publish(model, "s3://models/reader", **FAST), lambda: fetch("s3://models/reader", tmp_path/"back", **FAST), lambda: publish(model, "s3://new-bucket", create=True, **FAST), lambda: listed("s3://models/reader")):
            with pytest.raises(OutputError, match="denied.*check the keys") as said: do()
            assert SECRET not in str(said.value) and "AKIA" not in str(said.value)
    finally:
        connection.request("POST", "/moto-api/reset-auth", b"inf")
        assert connection.getresponse().status == 200
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"): monkeypatch.delenv(name)
    with pytest.raises(OutputError, match="denied.*redentials"): publish(model, "s3://models/reader", **FAST)


def test_no_network(s3, model, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # where nothing listens
    for do in (lambda: publish(model, "s3://models/reader", tries=1, progress=False), lambda: fetch("s3://models/reader", tmp_path/"back", tries=1, progress=False)):
        with pytest.raises(OutputError, match="cannot be reached"): do()


def test_ctrl_c_leaves_nothing_that_looks_whole(s3, model, tmp_path):
    s3.faults = [("PUT .*model.safetensors", "stop", 1)]
    with pytest.raises(KeyboardInterrupt): publish(model, "s3://models/reader", **FAST)
    with pytest.raises(DataError, match="not whole"): fetch("s3://models/reader", tmp_path/"back", **FAST)
    s3.faults = []
    publish(model, "s3://models/reader", **FAST)
    s3.faults = [("GET .*model.safetensors", "stop", 1)]
    with pytest.raises(KeyboardInterrupt): fetch("s3://models/reader", tmp_path/"back", **FAST)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize("stop", ["config.json", "model.safetensors"])
def test_an_update_that_was_interrupted_leaves_no_old_files(s3, model, stop):
    (model/"Report.html").write_text("old")
    (model/"notes.txt").write_text("old")
    publish(model, "s3://models/reader", include=["Report.html", "notes.txt"], **FAST)
    (model/"Report.html").rename(model/"report.html")  # a name that differs only so may stand in an unfinished manifest
    write_json(model/"config.json", dict(model_type="bert", changed=True))
    save_file({"weight": np.zeros(100)}, model/"model.safetensors")
    for _ in range(2):
        s3.faults = [(f"PUT .*{stop}", "500", 99)]
        with pytest.raises(OutputError): publish(model, "s3://models/reader", include=["report.html"], tries=1, progress=False)
        assert {"reader/Report.html", "reader/notes.txt"} <= objects(s3).keys()
        with pytest.raises(DataError, match="not whole"): listed("s3://models/reader")
    s3.faults = []
    publish(model, "s3://models/reader", include=["report.html"], **FAST)
    assert objects(s3).keys() == {f"reader/{name}" for name in SENT | {MANIFEST, "report.html"}} and listed("s3://models/reader").notes == ()


# The command line

def squad_nb(*words, **more): return subprocess.run([sys.executable, "-m", "squad_nb", *map(str, words)], capture_output=True, text=True, timeout=300, **more)


def test_commands(s3, model, tmp_path):
    done = squad_nb("publish", model, "s3://models/reader", "--json", "--license", "mit")
    assert done.returncode == 0, done.stderr
    assert {*json.loads(done.stdout)["files"]} == SENT and SECRET not in done.stdout + done.stderr
    done = squad_nb("fetch", "s3://models/reader", tmp_path/"back")
    assert done.returncode == 0 and f"{len(SENT)} files" in done.stdout and done.stderr == "", done.stderr
    for words, says in ((["publish", model, f"s3://AKIAIOSFODNN7EXAMPLE:{SECRET}@models/x"], "holds a name or a key"), (["publish", model, "s3://none/x"], "--create"), (["fetch", "s3://models/reader", tmp_path/"back"], "not empty")):
        done = squad_nb(*words)
        assert done.returncode == 1 and done.stdout == "" and len(done.stderr.splitlines()) == 1 and says in done.stderr, done.stderr
        assert SECRET not in done.stderr and "AKIA" not in done.stderr


# Folders and archives on this machine

@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_place_on_this_machine(model, tmp_path, kind):
    to = tmp_path/"shelf"/("reader.zip" if kind == "zip" else "reader")
    before = tree(model)
    publish(model, to, progress=False)
    assert {*publish(model, f"file://{to}", progress=False).states.values()} == {"was there"}
    fetch(to, tmp_path/"back", progress=False)
    assert tree(tmp_path/"back").keys() == SENT | {MANIFEST} and tree(model) == before
    assert not any(p.suffix in PICKLES for p in tmp_path.rglob("*") if model not in p.parents)
    assert [p.name for p in (tmp_path/"shelf").iterdir()] == [to.name]


def test_a_user_s_folder(model, tmp_path):
    publish(model, tmp_path/"shelf", progress=False)
    mine = tmp_path/"mine"
    mine.mkdir()
    for name, text in (("diary.txt", "dear diary"), ("README.md", "# by hand"), ("config.json", "old")): (mine/name).write_text(text)
    before = tree(mine)
    with pytest.raises(OutputError, match="not empty"): fetch(tmp_path/"shelf", mine, progress=False)
    with pytest.raises(OutputError, match="other things"): publish(model, mine, progress=False)
    assert tree(mine) == before
    got = fetch(tmp_path/"shelf", mine, force=True, progress=False)
    assert (mine/"diary.txt").read_text() == "dear diary" and (mine/"README.md").read_text() == "# by hand" and "by hand" in got.notes[0] and {*got.files} == {*got.states} == SENT - {CARD}
    assert entry(mine/"config.json") == entry(model/"config.json")
    (tmp_path/"empty").mkdir()
    assert tree(tmp_path/"empty") == {} and fetch(tmp_path/"shelf", tmp_path/"empty", progress=False).notes == () and tree(tmp_path/"empty").keys() == SENT | {MANIFEST}
    for do in (fetch, publish):
        with pytest.raises(OutputError, match="is a file"): do(tmp_path/"shelf", mine/"diary.txt", progress=False)
    with pytest.raises(DataError, match="nothing was published"): fetch(tmp_path/"nowhere", tmp_path/"x/y/z", progress=False)
    assert not (tmp_path/"x").exists()
    with pytest.raises(SettingError, match="itself"): publish(model, model, force=True, progress=False)
    (tmp_path/"outside").mkdir()
    (tmp_path/"linked").mkdir()
    (tmp_path/"linked/config.json").symlink_to(tmp_path/"outside/config.json")
    (tmp_path/"outside/config.json").write_text("another's")
    publish(model, tmp_path/"linked", force=True, progress=False)
    assert (tmp_path/"outside/config.json").read_text() == "another's"


@pytest.mark.parametrize("spoil, error, says", [
    (lambda m: (m/"config.json").unlink(), ModelError, "no config.json"),
    (lambda m: (m/"tokenizer.json").unlink(), ModelError, "no tokenizer"),
    (lambda m: (m/"model.safetensors").rename(m/"pytorch_model.bin"), ModelError, "a pickle"),
    (lambda m: (m/"model.safetensors").write_bytes((m/"model.safetensors").read_bytes()[:-1]), ModelError, "no whole safetensors file"),
    (lambda m: (m/"model.safetensors").write_bytes(b"\x80\x04."), ModelError, "no whole safetensors file"),
    (lambda m: write_json(m/"model.safetensors.index.json", dict(weight_map=dict(a="model-00001-of-00002.safetensors"))), ModelError, "lacks the weights"),
    (lambda m: shutil.rmtree(m), ModelError, "no folder"),
    (lambda m: ((m/"config.json").rename(m.parent/"config.json"), (m/"config.json").symlink_to(m.parent/"config.json")), DataError, "leads out"),
    (lambda m: (m/"run.json").write_text("{"), DataError, "not JSON")])
def test_what_is_no_model(model, tmp_path, spoil, error, says):
    spoil(model)
    with pytest.raises(error, match=says): publish(model, tmp_path/"shelf", progress=False)
    assert not (tmp_path/"shelf").exists()


def test_links_inside_the_folder_are_followed(model, tmp_path):
    (model/"tokenizer.json").rename(model/"kept.json")
    (model/"tokenizer.json").symlink_to("kept.json")
    publish(model, tmp_path/"shelf", progress=False)
    assert (tmp_path/"shelf/tokenizer.json").is_file() and not (tmp_path/"shelf/tokenizer.json").is_symlink()


def test_a_disk_that_is_full(s3, model, tmp_path, monkeypatch):
    publish(model, "s3://models/reader", **FAST)
    publish(model, tmp_path/"shelf", progress=False)
    publish(model, tmp_path/"reader.zip", progress=False)
    code = f"""
import resource
from squad_nb.core import OutputError
from squad_nb.publish import fetch, publish
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # the system refuses to write more to a file
for where in ("{tmp_path}/shelf", "{tmp_path}/reader.zip", "s3://models/reader"):
    try: fetch(where, "{tmp_path}/back", progress=False, tries=1)
    except OutputError as e: print(e)
try: publish("{model}", "{tmp_path}/second.zip", progress=False, tries=1)
except OutputError as e: print(e)"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert said.stdout.count("There is no room left in") == 4, said.stdout + said.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["reader.zip", "run", "shelf"]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(OutputError, match="There is no room in"): fetch(tmp_path/"shelf", tmp_path/"back", progress=False)


def test_from_a_web_server(model, tmp_path):
    from functools import partial
    from http.server import SimpleHTTPRequestHandler
    publish(model, tmp_path/"web/reader", progress=False)
    publish(model, tmp_path/"web/reader.zip", progress=False)
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path/"web"))
    threading.Thread(target=web.serve_forever, args=(0.05,), daemon=True).start()
    try:
        url = f"http://127.0.0.1:{web.server_address[1]}"
        for i, name in enumerate(("reader", "reader.zip", "reader.zip?Signature=abc")):
            assert {*fetch(f"{url}/{name}", tmp_path/f"back{i}", **FAST).files} == SENT
        with pytest.raises(DataError, match="nothing was published"): fetch(f"{url}/none", tmp_path/"none", **FAST)
        with pytest.raises(DataError, match="There is no file") as said: fetch(f"{url}/none.zip?Signature=abc", tmp_path/"none", **FAST)
        assert "abc" not in str(said.value)
    finally:
        web.shutdown()
        web.server_close()
    for name in ("reader", "reader.zip"):
        with pytest.raises(OutputError, match="cannot be reached"): fetch(f"{url}/{name}", tmp_path/"none", tries=1, progress=False)


# Archives that were not made by us

def test_members_of_an_archive(model, tmp_path):
    publish(model, tmp_path/"good.zip", progress=False)
    members = {m.filename: zipfile.ZipFile(tmp_path/"good.zip").read(m) for m in zipfile.ZipFile(tmp_path/"good.zip").infolist()}
    def made(change):
        rows = [(name, text, 0o644) for name, text in members.items()]
        with zipfile.ZipFile(tmp_path/"bad.zip", "w") as archive:
            for name, text, mode in change(rows):
                info = zipfile.ZipInfo("x" if "\0" in name else name)
                info.external_attr = mode << 16
                archive.writestr(info, text)
        return tmp_path/"bad.zip"
    bad = dict(up=("../x.json", b"", 0o644), absolute=("/x.json", b"", 0o644), link=("x.json", b"/etc/passwd", 0o120777), device=("x.json", b"", 0o020644), twice=("config.json", b"{}", 0o644),
               case=("CONFIG.json", b"{}", 0o644), pickle=("x.pkl", b"", 0o644), unknown=("x.json", b"", 0o644), windows=("c:x.json", b"", 0o644), folder=("x/", b"", 0o40755))
    for name, member in bad.items():
        warnings.simplefilter("ignore")  # zipfile's, of two members of one name
        with pytest.raises(DataError): fetch(made(lambda rows: [member, *rows]), tmp_path/"back", progress=False)
        with pytest.raises(DataError): fetch(made(lambda rows: [*rows, member]), tmp_path/"back", progress=False)
    with pytest.raises(DataError, match="not in both"): fetch(made(lambda rows: [row for row in rows if row[0] != "config.json"]), tmp_path/"back", progress=False)
    with pytest.raises(DataError, match="checksum"): fetch(made(lambda rows: [(n, t[:-1] + b"!" if n == "config.json" else t, m) for n, t, m in rows]), tmp_path/"back", progress=False)
    with pytest.raises(DataError, match="did not make it"): fetch(made(lambda rows: rows[:1]), tmp_path/"back", progress=False)
    whole = (tmp_path/"good.zip").read_bytes()
    for broken in (whole[:-10], whole[:100], b"", b"PK\x03\x04", whole[:200] + b"\xff"*100 + whole[300:]):
        (tmp_path/"bad.zip").write_bytes(broken)
        with pytest.raises(DataError): fetch(tmp_path/"bad.zip", tmp_path/"back", progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.zip", "good.zip", "run"]


def test_archives_of_another_kind(model, tmp_path):
    publish(model, tmp_path/"good.zip", progress=False)
    good = zipfile.ZipFile(tmp_path/"good.zip")
    for kind in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(tmp_path/"bad.zip", "w", kind) as archive:
            for name in good.namelist(): archive.writestr(name, good.read(name))
        data = bytearray((tmp_path/"bad.zip").read_bytes())
        for spoilt in (data, data[:60] + b"\xff"*40 + data[100:]):
            (tmp_path/"bad.zip").write_bytes(spoilt)
            for do in (lambda: fetch(tmp_path/"bad.zip", tmp_path/"back", progress=False), lambda: listed(tmp_path/"bad.zip")):
                with pytest.raises(DataError, match="compressed in a way|not a whole zip"): do()
    with zipfile.ZipFile(tmp_path/"bad.zip", "w") as archive: archive.writestr("\u00e4.json", b"{}")
    data = (tmp_path/"bad.zip").read_bytes()
    (tmp_path/"bad.zip").write_bytes(data.replace("\u00e4".encode(), b"\xff\xff"))
    for do in (lambda: fetch(tmp_path/"bad.zip", tmp_path/"back", progress=False), lambda: listed(tmp_path/"bad.zip")):
        with pytest.raises(DataError, match="not a whole zip"): do()
    assert not (tmp_path/"back").exists()


def test_any_byte_of_an_archive_may_be_wrong(tmp_path):
    from io import BytesIO
    from squad_nb.publish import pack, unpack
    parcel = {"config.json": b"{}"*50, "b/\u00fc.json": b"[1]"}
    files = pack(tmp_path/"a.zip", parcel)
    whole = (tmp_path/"a.zip").read_bytes()
    for at in range(len(whole)):
        for value in (0, 1, 12, 14, 0xff):
            try: assert unpack(BytesIO(whole[:at] + bytes([value]) + whole[at + 1:]), "a.zip") == files  # what does not matter, such as a date
            except DataError: pass


def test_a_bomb_is_not_unpacked(model, tmp_path):
    parcel = {"config.json": b"{}", "tokenizer.json": b"{}"}
    with zipfile.ZipFile(tmp_path/"bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", bytes(50*2**20))
        archive.writestr("tokenizer.json", b"{}")
        archive.writestr(MANIFEST, json.dumps(dict(squad_nb=1, complete=True, files={name: entry(text) for name, text in parcel.items()})))
    with pytest.raises(DataError, match="config.json"): fetch(tmp_path/"bomb.zip", tmp_path/"back", progress=False)
    assert not (tmp_path/"back").exists()


def test_nothing_is_run_or_unpickled(model, tmp_path):
    write_json(model/"config.json", dict(model_type="bert", auto_map=dict(AutoModel="evil.Evil")))
    (model/"evil.py").write_text(f"open({str(tmp_path/'hit')!r}, 'w')")
    publish(model, tmp_path/"shelf", include=["evil.py"], progress=False)
    fetch(tmp_path/"shelf", tmp_path/"back", progress=False)
    assert not (tmp_path/"hit").exists() and (tmp_path/"back/evil.py").exists()


# Keys and cards

@pytest.mark.parametrize("url", [f"s3://AKIAIOSFODNN7EXAMPLE:{SECRET}@bucket/x", "s3://key:se/cr:et@bucket/x", f"https://ada:{SECRET}@example.org/x.zip", f"https://{SECRET}@example.org/x.zip", f"hf://hf_{SECRET}@user/model", f"sftp://ada:{SECRET}@host/x", f"abfs://c:{SECRET}@account.dfs.core.windows.net/x"])
def test_an_address_with_a_key(url, model, tmp_path, caplog):
    for do in (lambda: publish(model, url, progress=False), lambda: fetch(url, tmp_path/"back", progress=False), lambda: listed(url)):
        with pytest.raises(SettingError) as said: do()
        assert not [leak for leak in (SECRET, "AKIA", "cr:et", "se/cr") if leak in str(said.value) + caplog.text]


def test_a_name_in_an_address(model, tmp_path, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem
    from fsspec.registry import _registry
    asked = []
    class Elsewhere(MemoryFileSystem):
        "A store that takes its host and user from the address, as those of sftp and abfs do"
        protocol, store, pseudo_dirs = "elsewhere", {}, [""]
        def __init__(self, host, username, **more):
            asked.append((host, username))
            super().__init__(**more)
        @classmethod
        def _strip_protocol(cls, path): return "/" + re.sub(r"^elsewhere://[^/]*/?", "", path).strip("/")
        @staticmethod
        def _get_kwargs_from_urls(path): return dict(zip(("username", "host"), re.match(r"elsewhere://(.*?)@([^/]*)", path).groups()))
    monkeypatch.setitem(_registry, "elsewhere", Elsewhere)
    for i, url in enumerate(("elsewhere://ada@host/models/reader", "elsewhere://ada@host/reader.zip")):
        publish(model, url, **FAST)
        fetch(url, tmp_path/f"back{i}", **FAST)
        assert tree(tmp_path/f"back{i}").keys() == SENT | {MANIFEST} and {*asked} == {("host", "ada")}
    for url in ("abfs://container@account.dfs.core.windows.net/x", "sftp://user@host/x", "s3://bucket/a@b"): assert address(url).shown == url


def test_messages_are_redacted(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_environment")
    text = f"GET https://b.s3.amazonaws.com/k?X-Amz-Signature=abc123&X-Amz-Security-Token=zzz for AKIAIOSFODNN7EXAMPLE, hf_environment, s3://a:b@c, {SECRET}"
    said = redacted(text, dict(key="AKIAIOSFODNN7EXAMPLE", client_kwargs=dict(aws_secret_access_key=SECRET)))
    assert not [leak for leak in ("abc123", "zzz", "AKIA", "environment", "a:b@", SECRET) if leak in said], said
    for text in ("access_token=9F1C+x/y", "https://a.blob.core.windows.net/c/x?sig=9F1C%2Bx", "AccountName=ada;AccountKey=9F1C+x/y==;EndpointSuffix=core", "client_secret=9F1C", "aws_secret_access_key = 9F1C", "secret_access_key: 9F1C", "Authorization: Bearer 9F1C.x-y_z",
                 '{"token": "9F1C"}', '{\\"token\\": \\"9F1C\\"}', "'api-key': '9F1C'", "token: Bearer 9F1C", "SharedAccessKey=9F1C"):
        said = redacted(text)
        assert "9F1C" not in said and "***" in said and "x/y" not in said, said
    for text in ("the tokenizer: fine", "tokens: 5", "a token of the tokenizer", "design: new", "the keys: a and b", "s3://bucket/model: no such file"): assert redacted(text) == text
    assert redacted("AccountName=ada;AccountKey=9F1C==;EndpointSuffix=core") == "AccountName=ada;AccountKey=***;EndpointSuffix=core"


def test_the_query_of_an_address_is_not_shown(tmp_path):
    "A library's text holds the whole address, and may quote it otherwise"
    class Refusing(BaseHTTPRequestHandler):
        def log_message(self, *args): pass
        def do_GET(self): self.send_error(410)
        def do_HEAD(self):
            self.send_response(200)
            for k, v in {"Content-Length": "1000", "Accept-Ranges": "bytes"}.items(): self.send_header(k, v)
            self.end_headers()
    web = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=web.serve_forever, args=(0.05,), daemon=True).start()
    try:
        for query in ("key=9F1C", "a=b&x=%399F1C/y", "9F1C"):
            for do in (lambda url: fetch(url, tmp_path/"back", tries=1, progress=False), listed):
                with pytest.raises(OutputError) as said: do(f"http://127.0.0.1:{web.server_address[1]}/reader.zip?{query}")
                assert "9F1C" not in str(said.value) and "410" in str(said.value) and "/reader.zip" in str(said.value)
    finally:
        web.shutdown()
        web.server_close()


@pytest.mark.parametrize("url, says", [("nowhere://x", "no protocol nowhere"), ("gs://bucket/x", "pip install gcsfs"), ("s3:/bucket/x", "two slashes"), ("", "no address"), ("zip://x::s3://y", "one place"), ("https://example.org/x", "read from"), ("https://example.org/x?a=1", "question mark"), ("hf://user/model/x.zip", "archive"), ("hf://model", "hf://user/model"), ("hf://datasets/user/x", "hf://user/model")])
def test_addresses_that_are_none(url, says, model):
    with pytest.raises(SettingError, match=re.escape(says)): publish(model, url, progress=False)


def test_s3_needs_its_package(model):
    code = f"import sys; sys.modules['s3fs'] = None; from squad_nb.publish import publish; publish({str(model)!r}, 's3://bucket/x', progress=False)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "SettingError" in said.stderr and "pip install s3fs" in said.stderr


def test_a_card(model):
    from squad_nb.metrics import squad_metrics
    from squad_nb.sample import generate_squad, overlap_baseline
    from squad_nb.squad import from_squad_json
    import yaml
    plain = model_card(model, trained_on="squad", license="mit")
    front = yaml.safe_load(plain.split("---\n")[1])
    assert front == dict(library_name="transformers", license="mit", pipeline_tag="question-answering", datasets=["squad"], tags=["squad_nb", "extractive"], metrics=["exact_match", "f1"])
    assert "| EM | 50.00 | 20.0 to 80.0 | 10 |" in plain and "| F1 | 60.00 | – | 10 |" in plain and "somewhere" not in plain and "bert" in plain and is_own_card(plain)
    questions = from_squad_json(generate_squad(5, names="test"))
    said = overlap_baseline(questions)
    write_json(model/"predictions.json", said)
    full, scores = model_card(model, questions), squad_metrics(said, questions)
    assert f"| EM | {scores['exact_match']:.2f} |" in full and f"| F1 | {scores['f1']:.2f} |" in full and "## What it gets wrong" in full and "| right | " in full
    with pytest.raises(DataError): model_card(model, questions.select(range(3)))
    write_json(model/"predictions.json", {k: said[k] for k in [*said][:3]})
    with pytest.raises(DataError, match="lacks answers"): model_card(model, questions)


@pytest.mark.parametrize("mask", ["causal", "prefix"])
def test_a_card_says_how_to_ask(model, mask):
    write_json(model/"config.json", dict(model_type="gpt2", squad_nb=dict(track="generative", mask_mode=mask, layout="context_first", question="Question: {}", context="Context: {}", cue="answer:")))
    card = model_card(model)
    assert ("Context: {} Question: {} answer:" in card) == (mask == "causal") and ("gives other answers" in card) == (mask == "prefix") and "pipeline_tag: text-generation" in card


def test_a_card_tells_nothing_of_the_machine(model, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    for base in (str(Path.home()/"private/bert"), "C:\\Users\\ada\\bert", "../up/bert", f"s3://AKIAIOSFODNN7EXAMPLE:{SECRET}@bucket/bert", "`<script>`|bert"):
        write_json(model/"run.json", dict(model=base, questions=3, settings=dict(note=SECRET, path="/data/secret/place"), training=dict(seed=0), scores={}))
        write_json(model/"config.json", dict(model_type="bert", _name_or_path=base))
        card = model_card(model, trained_on=str(Path.home()/"private/data.json"))
        for leak in (str(Path.home()), "private", "ada", "AKIA", SECRET, "secret/", "<script>", str(model.parent)): assert leak not in card, (leak, card)


def test_cards_by_hand_are_kept(model, tmp_path):
    publish(model, tmp_path/"a", progress=False)
    ours = (tmp_path/"a"/CARD).read_text()
    (tmp_path/"a"/CARD).write_text(ours.replace("## Data", "## My data"))
    assert "by hand" in publish(model, tmp_path/"a", license="mit", force=True, progress=False).notes[0]
    assert "## My data" in (tmp_path/"a"/CARD).read_text()
    (model/CARD).write_text("# mine")
    publish(model, tmp_path/"b", progress=False)
    assert (tmp_path/"b"/CARD).read_text() == "# mine"
    (model/CARD).write_text("# mine, better")  # what was published may be replaced by its own author
    publish(model, tmp_path/"b", progress=False)
    assert (tmp_path/"b"/CARD).read_text() == "# mine, better"


def test_paths_are_taken_out_of_what_is_sent(model, tmp_path):
    write_json(model/"tokenizer_config.json", dict(name_or_path="/data/somewhere/bert", chat="/ no path"))
    publish(model, tmp_path/"a", progress=False)
    assert not [p.name for p in (tmp_path/"a").iterdir() if b"somewhere" in p.read_bytes()]


def test_paths_are_taken_out_of_every_json(model, tmp_path):
    "But for text and tokens, which may look like paths"
    said = {"adapter_config.json": dict(base_model_name_or_path="/data/somewhere/bert", r=8), "checkpoint-10/trainer_state.json": dict(best_model_checkpoint="C:\\somewhere\\checkpoint-10", log_history=[dict(loss=float("nan"))]),
            "special_tokens_map.json": dict(sep_token="/sep/", pad_token=dict(content="/pad/"), additional_special_tokens=["/a/b"]), "predictions.json": dict(q="/usr/bin"), "vocab.json": {"/usr/bin": 0}}
    for name, data in said.items(): (model/name).write_text(json.dumps(data))
    whole = tree(model)
    publish(model, tmp_path/"a", include=["checkpoint-*/trainer_state.json"], progress=False)
    read = lambda name: json.loads((tmp_path/"a"/name).read_text())
    assert read("adapter_config.json") == dict(base_model_name_or_path="bert", r=8) and read("checkpoint-10/trainer_state.json")["best_model_checkpoint"] == "checkpoint-10"
    assert not [p for p in (tmp_path/"a").rglob("*") if p.is_file() and b"somewhere" in p.read_bytes()]
    for name in ("special_tokens_map.json", "predictions.json", "vocab.json", "tokenizer.json"): assert entry(tmp_path/"a"/name) == whole[name]


def test_colab_gets_the_file(model, tmp_path, monkeypatch):
    from types import ModuleType
    from squad_nb.publish import download_link
    colab, got = ModuleType("google.colab"), []
    colab.files = ModuleType("files")
    colab.files.download = got.append
    monkeypatch.setitem(sys.modules, "google", ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.chdir(tmp_path)
    assert download_link("run") is None and got == ["run.zip"] and zipfile.is_zipfile("run.zip")


# The hub, as far as a stand-in on the loopback goes: regular and LFS files, one commit, ranges, refusals

class Hub(ThreadingHTTPServer):
    daemon_threads = True
    def __init__(self):
        super().__init__(("127.0.0.1", 0), HubRelay)
        self.repos, self.seen, self.private, self.lfs, self.uploads = {}, [], {}, False, {}
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


class HubRelay(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *args): pass

    def answer(self, status, data=b"", **headers):
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        for k, v in ({"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}).items(): self.send_header(k, v)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD": self.wfile.write(data)

    def do(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, hub = self.path.partition("?")[0], self.server
        hub.seen.append(f"{self.command} {path}")
        if path.startswith("/upload/"):
            hub.uploads[path.rpartition("/")[2]] = body
            return self.answer(200)
        if self.headers.get("Authorization") != "Bearer hf_right": return self.answer(401, dict(error="Invalid username or password."), X_Error_Message="Invalid credentials in Authorization header")
        if path == "/api/repos/create":
            said = json.loads(body)
            name = "/".join(filter(None, [said.get("organization"), said["name"]])) if "/" not in said["name"] else said["name"]
            hub.repos.setdefault(name if "/" in name else f"ada/{name}", {".gitattributes": b""})
            hub.private[name] = said.get("private") or said.get("visibility") == "private"
            return self.answer(200, dict(url=f"https://huggingface.co/{name}"))
        if path == "/api/validate-yaml": return self.answer(200, dict(errors=[], warnings=[]))
        if path == "/api/whoami-v2": return self.answer(200, dict(name="ada", type="user", orgs=[]))
        name = next((name for name in hub.repos if f"/{name}" in path), None)
        if name is None: return self.answer(404, dict(error="Repository not found"), X_Error_Code="RepoNotFound")
        files, sha = hub.repos[name], "0"*40
        def blob(data):
            large = dict(lfs=dict(size=len(data), oid=hashlib.sha256(data).hexdigest(), pointerSize=130)) if hub.lfs and len(data) > 10_000 else {}
            return dict(size=len(data), oid=hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()) | large
        if path.endswith("/lfs/objects/batch"):
            to = f"http://127.0.0.1:{hub.server_address[1]}/upload/{name}/"
            return self.answer(200, dict(transfer="basic", objects=[o | dict(actions=dict(upload=dict(href=to + o["oid"]))) for o in json.loads(body)["objects"]]))
        if f"/resolve/" in path:
            data = files.get(re.sub(r".*/resolve/[^/]+/", "", path))
            if data is None: return self.answer(404, b"", X_Error_Code="EntryNotFound")
            part = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            more = dict(ETag=f'"{blob(data)["oid"]}"', X_Repo_Commit=sha, Accept_Ranges="bytes", Content_Type="application/octet-stream")
            if not part: return self.answer(200, data, **more)
            a, b = int(part[1]), int(part[2] or len(data) - 1)
            return self.answer(206, data[a:b + 1], Content_Range=f"bytes {a}-{b}/{len(data)}", **more)
        if "/preupload/" in path: return self.answer(200, dict(files=[dict(path=f["path"], uploadMode="lfs" if hub.lfs and f["size"] > 10_000 else "regular", shouldIgnore=False) for f in json.loads(body)["files"]]))
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file": files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                if line["key"] == "lfsFile": files[line["value"]["path"]] = hub.uploads[line["value"]["oid"]]
                if line["key"] == "deletedFile": del files[line["value"]["path"]]
            return self.answer(200, dict(commitUrl=f"https://huggingface.co/{name}/commit/{sha}", commitOid=sha, hookOutput=""))
        if "/paths-info/" in path:
            return self.answer(200, [dict(type="file", path=p, **blob(files[p])) for p in json.loads(body)["paths"] if p in files])
        if "/tree/" in path: return self.answer(200, [dict(type="file", path=p, **blob(data)) for p, data in files.items()])
        return self.answer(200, dict(id=name, sha=sha, siblings=[dict(rfilename=p) for p in files]))

    do_GET = do_PUT = do_POST = do_HEAD = do


@pytest.fixture
def hub(monkeypatch):
    from huggingface_hub import constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its servers have no stand-in
    hub = Hub()
    hub.options = dict(endpoint=f"http://127.0.0.1:{hub.server_address[1]}", token="hf_right")
    yield hub
    hub.shutdown()
    hub.server_close()


@pytest.mark.parametrize("lfs", [False, True], ids=["regular", "lfs"])
def test_the_hub(hub, model, tmp_path, lfs):
    hub.lfs = lfs
    more = dict(options=hub.options, progress=False, tries=1)
    with pytest.raises(OutputError, match="no model ada/reader.*--create"): publish(model, "hf://ada/reader", **more)
    sent = publish(model, "hf://ada/reader", create=True, **more)
    assert {*hub.repos["ada/reader"]} == SENT | {MANIFEST, ".gitattributes"} and {*sent.states.values()} == {"sent"} and all(hub.private.values())
    assert sum("/commit/" in line for line in hub.seen) == 1  # all of it at once
    assert {*publish(model, "hf://ada/reader", **more).states.values()} == {"was there"} and sum("/commit/" in line for line in hub.seen) == 1
    assert len(hub.uploads) == lfs
    assert {*listed("hf://ada/reader@main", options=hub.options).states.values()} == {*listed("hf://ada/reader", options=hub.options).states.values()} == {"there"}
    fetch("hf://ada/reader", tmp_path/"back", **more)
    assert entry(tmp_path/"back/model.safetensors") == entry(model/"model.safetensors")
    hub.repos["ada/reader"]["README.md"] = b"# by hand"
    (model/"run.json").unlink()
    assert "by hand" in publish(model, "hf://ada/reader", **more).notes[0] and "run.json" not in hub.repos["ada/reader"]
    hub.repos["ada/reader"]["config.json"] = b"{}"
    with pytest.raises(DataError, match="config.json is not what was published"): fetch("hf://ada/reader", tmp_path/"again", **more)


def test_the_hub_refuses(hub, model, tmp_path):
    more = dict(options=hub.options | dict(token="hf_wrongwrong"), progress=False, tries=1)
    for do in (lambda: publish(model, "hf://ada/reader", **more), lambda: publish(model, "hf://ada/reader", create=True, **more), lambda: fetch("hf://ada/reader", tmp_path/"back", **more)):
        with pytest.raises(SquadNbError) as said: do()
        assert "hf_wrong" not in str(said.value) and "hf://ada/reader" in str(said.value) or "log in" in str(said.value)


def test_the_hub_without_a_network(model, tmp_path):
    for do in (lambda: publish(model, "hf://ada/reader", progress=False, tries=1), lambda: fetch("hf://ada/reader", tmp_path/"back", progress=False, tries=1)):
        with pytest.raises(OutputError, match="cannot be reached"): do()  # HF_HUB_OFFLINE is set
