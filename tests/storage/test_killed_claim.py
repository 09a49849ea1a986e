"""A run that was killed as it wrote its claim."""

from jumpgpu.storage.claims import Claim


def test_a_claim_without_content_is_a_dead_runs(tmp_path):
    dead = tmp_path / ".P1.run-dead"
    dead.mkdir()
    for name in ("claim.json", "lock"):
        (dead / name).touch()
    claim = Claim(tmp_path, "P1", ["A01"])
    assert not dead.exists()
    assert claim.others == []
    claim.release()
