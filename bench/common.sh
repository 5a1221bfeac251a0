# Sourced by train.sh and score.sh, with the repository as working directory.

OUT=target/bench
PYTHON=$OUT/venv/bin/python
export PYTHONDONTWRITEBYTECODE=1

# Makes the virtual environment of the peers, unless it is there whole.
make_venv() {
    if [ ! -f "$OUT/venv/made" ] || ! cmp -s bench/requirements.txt "$OUT/venv/made"; then
        echo "making $OUT/venv" >&2
        mkdir -p "$OUT"
        python3 -m venv "$OUT/venv"
        "$PYTHON" -m pip install --quiet --disable-pip-version-check -r bench/requirements.txt
        cp bench/requirements.txt "$OUT/venv/made"
    fi
}

# Makes a file of $1 rows, unless it is there; prints its path.
make_data() {
    local file=$OUT/flights-$1.parquet
    if [ ! -f "$file" ]; then
        "$PYTHON" bench/make_flights.py --rows "$1" --out "$file" --seed 7 ${FLIGHTS:+--source "$FLIGHTS"} >&2
    fi
    echo "$file"
}
