"""Photos that are in order under names that are not: every one comes in, under a name that is safe as a file name anywhere."""

from tests.faults.bad_inputs import encode as e
from tests.faults.bad_inputs.case import ACCEPTED, USED, PhotoCase

# What is sent, and the name it is kept under.
NAMES = {
    "path that climbs": ("../../../../etc/passwd", "passwd.jpg"),
    "absolute path": ("/etc/cron.d/evil.jpg", "evil.jpg"),
    "windows path": ("C:\\Windows\\System32\\a1.jpg", "a1.jpg"),
    "network path": ("\\\\server\\share\\a2.jpg", "a2.jpg"),
    "mixed slashes": ("..\\../..\\a3.jpg", "a3.jpg"),
    "percent-encoded path": ("..%2f..%2fa4.jpg", "_2f.._2fa4.jpg"),
    "overlong utf-8 slash": (b"..\xc0\xaf..\xc0\xafa5.jpg", "\ufffd\ufffd..\ufffd\ufffda5.jpg"),
    "right-to-left override": ("a6\u202egpj.exe.jpg", "a6gpj.exe.jpg"),
    "zero-width characters": ("a\u200b7\u2060\ufeff.jpg", "a7.jpg"),
    "tab and escape": ("a\t8\x1b[2J.jpg", "a8[2J.jpg"),
    "only dots": ("....", "photo.jpg"),
    "only blanks": ("   ", "photo-2.jpg"),
    "dot and extension": (".jpg", "jpg.jpg"),
    "hidden file": (".htaccess", "htaccess.jpg"),
    "trailing dots": ("a9.jpg. . .", "a9.jpg"),
    "device name": ("CON.jpg", "CON.jpg"),
    "device without extension": ("NUL", "NUL.jpg"),
    "alternate stream": ("a10.jpg:evil.exe", "a10.jpg_evil.exe"),
    "3,000 characters": ("x" * 3000 + ".jpg", "x" * 116 + ".jpg"),
    "1,000 emoji": ("📷" * 1000 + ".jpg", "📷" * 29 + ".jpg"),
    "emoji": ("👩\u200d🎨🏞\ufe0f.jpg", "👩🎨🏞\ufe0f.jpg"),
    "half a surrogate": (b"a11\xed\xa0\x80.jpg", "a11\ufffd\ufffd\ufffd.jpg"),
    "latin-1": ("é12.jpg".encode("latin-1"), "\ufffd12.jpg"),
    "decomposed accents": ("e\u03013.jpg".replace("3", "13"), "é13.jpg"),
    "a hundred accents on one letter": ("Z" + "\u0353" * 100 + "14.jpg", "Z" + "\u0353" * 57 + ".jpg"),
    "command substitution": ("$(reboot)`id`;15.jpg", "$(reboot)`id`;15.jpg"),
    "sql": ("'); DROP TABLE photo;--16.jpg", "'); DROP TABLE photo;--16.jpg"),
    "html": ("<img src=x onerror=alert(1)>17.jpg", "_img src=x onerror=alert(1)_17.jpg"),
    "template": ("{{7*7}}18.jpg", "{{7_7}}18.jpg"),
    "option": ("--preset=high19.jpg", "--preset=high19.jpg"),
    "long extension": ("a20." + "j" * 50, "a20." + "j" * 50),
    "name of another file kind": ("a21.jpg.php", "a21.jpg.php"),
    "name that the first stage skips": ("Thumbs.db", "Thumbs.db.jpg"),
    "name of a folder of ours": ("masks", "masks.jpg"),
}


def cases(seed: int) -> list[PhotoCase]:
    """Return the cases; their pictures depend on the seed."""
    return [
        PhotoCase(
            f"name: {what}", sent if isinstance(sent, str) else sent.decode("utf-8", "surrogateescape"), data, ACCEPTED, (USED,), stored
        )
        for n, (what, (sent, stored)) in enumerate(NAMES.items())
        for data in [e.jpeg(1000 * seed + 500 + n)]
    ]
