"""`python -m p2p_bench` is `p2p-bench`."""

from p2p_bench.app.main import main

if __name__ == "__main__":
    main()
