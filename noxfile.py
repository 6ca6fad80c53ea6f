"""The project's sessions; `make` calls the same tools in one virtual environment."""

import nox

nox.options.sessions = ["lint", "tests"]


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types, layering, sizes, generated files, spelling."""
    session.install("-e", ".[lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("lint-imports")
    session.run("python", "tools/check_size.py")
    session.run("python", "tools/check_circles.py")
    session.run("python", "tools/check_packages.py")
    session.run("python", "tools/check_patches.py")
    session.run("python", "tools/untested.py", "--check")
    session.run("python", "tools/generate_wire.py", "--check")
    session.run("codespell", "etcdtw", "tests", "tools", "benchmarks", "docs")


@nox.session
def tests(session: nox.Session) -> None:
    """The whole suite."""
    session.install("-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def cover(session: nox.Session) -> None:
    """Branch coverage of the pure rooms."""
    session.install("-e", ".[test]")
    session.run("pytest", "--cov", "--cov-branch", "-m", "not integration", *session.posargs)


@nox.session
def mindeps(session: nox.Session) -> None:
    """The suite with every dependency at its declared lower bound."""
    session.install("-e", ".[test]")
    session.install(
        "twisted[tls]==25.5.0",
        "pyopenssl==24.3.0",
        "service-identity==24.2.0",
        "lmdb==3.0.0",
        "protobuf==5.29.0",
        "prometheus-client==0.21.0",
        "google-crc32c==1.6.0",
    )
    session.run("pytest", "-m", "not integration", *session.posargs)


@nox.session(venv_backend="none")
def compiled(session: nox.Session) -> None:
    """The rooms' tests on compiled cores (needs a C compiler)."""
    session.run("make", "test-compiled", f"ARGS={' '.join(session.posargs)}")


@nox.session
def build(session: nox.Session) -> None:
    """Build a wheel, install it elsewhere, and see that twistd lists the plugin."""
    session.run("pip", "wheel", "--no-deps", "--wheel-dir", "dist", ".")
    session.install("--find-links", "dist", "etcdtw")
    session.run("twistd", "--help")


@nox.session
def bench(session: nox.Session) -> None:
    """Side by side with real etcd."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "benchmarks.side_by_side", *session.posargs)
