# Sourced by the other scripts, with the repository as working directory.

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

# Sets SUBMIT_JOB: builds the executable with PROFILE (default: release), unless one is named.
make_submit_job() {
    if [ -z "${SUBMIT_JOB:-}" ]; then
        local profile=${PROFILE:-release}
        cargo build --profile "$profile" --bin submit-job
        [ "$profile" != dev ] || profile=debug
        SUBMIT_JOB=${CARGO_TARGET_DIR:-target}/$profile/submit-job
    fi
}

# Sets PIN: what puts a command on THREADS cores, the same for everybody, where there are more.
make_pin() {
    PIN=()
    if command -v taskset >/dev/null && [ "$(nproc)" -gt "$THREADS" ]; then
        PIN=(taskset -c "0-$((THREADS - 1))")
    fi
}

# Measures a command, after --, and appends the figures as one JSON line; needs RESULTS.
#   measure NAME [OPTION...] -- COMMAND ARG...
measure() {
    local name=$1
    shift
    "${PIN[@]}" "$PYTHON" bench/measure.py --name "$name" --out "$RESULTS" "$@"
}

# Ingests the file $2 in process into a data root for $1, unless it is there; sets DATA.
ingest_once() {
    DATA=$OUT/root-$1
    if [ ! -d "$DATA/flights" ]; then
        rm -rf "$DATA" "$OUT/ingest-$1.jsonl"
        RESULTS=$OUT/ingest-$1.jsonl measure ingest -- "$SUBMIT_JOB" --data "$DATA" ingest "$2" >&2
    fi
    # The first command must not be the one that reads from the disk.
    find "$DATA/flights" -type f -exec cat {} + >/dev/null
}

# Trains the original's forest under DATA and measures it: measure's arguments, then `train`'s
# after --.
#   train NAME [OPTION...] -- ARG...
train() {
    local options=()
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    # With a champion, training evaluates it too: without, all runs have the same work.
    rm -f "$DATA/models/champion"
    measure "${options[@]}" -- "$SUBMIT_JOB" --data "$DATA" train --json --preset original "$@"
}

# Ends the script: what $1 said is in LOG.
failed() {
    echo "$1 failed, see $LOG" >&2
    exit 1
}
