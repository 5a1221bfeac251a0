//! SQL made from a grammar. All statements hold in DataFusion's dialect and in DuckDB's but for the
//! names of semi and anti joins.
//!
//! Each relation has the columns `k` and `g` (text) and `x` and `y` (integers), all with nulls, so
//! that any can stand where another stands. An upper bound of its rows goes along, so that no
//! statement compares billions of pairs.

use crate::dice::Dice;

/// Most pairs that a join may compare, and most rows of a relation.
const PAIRS_MAX: u64 = 2_000_000;
/// An order of all columns, so that what a limit keeps is known.
const ORDER: &str = "k NULLS LAST, g NULLS LAST, x NULLS LAST, y NULLS LAST";

#[derive(Clone)]
struct Relation {
    sql: String,
    n_rows: u64,
}

impl Relation {
    fn new(sql: impl Into<String>, n_rows: u64) -> Self {
        Self { sql: sql.into(), n_rows }
    }
}

/// The statement of a seed.
pub fn statement(seed: u64) -> String {
    let dice = &mut Dice::new(seed);
    let depth = 1 + dice.below(3);
    let Relation { sql: r, .. } = relation(dice, depth);
    match dice.below(9) {
        0 => format!(
            "SELECT COUNT(*) AS n, COUNT(k) AS k, COUNT(g) AS g, SUM(x) AS x, SUM(y) AS y, \
             MIN(k) AS first, MAX(g) AS last FROM ({r}) AS r"
        ),
        1 => format!(
            "SELECT k, COUNT(*) AS n, SUM(x) AS x, COUNT(DISTINCT g) AS g, \
             CAST(ROUND(AVG(y)) AS BIGINT) AS y FROM ({r}) AS r GROUP BY k{}",
            dice.one_of(&["", " ORDER BY k NULLS LAST LIMIT 3", " ORDER BY k DESC NULLS LAST"])
        ),
        2 => format!("SELECT * FROM ({r}) AS r ORDER BY {ORDER} LIMIT {}", 1 + dice.below(60)),
        3 => format!(
            "SELECT DISTINCT k, g FROM ({r}) AS r ORDER BY k NULLS LAST, g NULLS LAST LIMIT {}",
            1 + dice.below(20)
        ),
        4 => format!(
            "SELECT 'all' AS k, COUNT(*) AS n FROM ({r}) AS r UNION ALL \
             SELECT k, COUNT(*) AS n FROM ({r}) AS r GROUP BY k"
        ),
        5 => format!(
            "SELECT g, COUNT(*) AS n, SUM(x) FILTER (WHERE y > 0) AS x FROM ({r}) AS r \
             GROUP BY g HAVING COUNT(*) > {}",
            dice.below(3)
        ),
        6 => format!(
            "SELECT k, x, n FROM (SELECT k, x, ROW_NUMBER() OVER (PARTITION BY k ORDER BY {ORDER}) \
             AS n FROM ({r}) AS r) AS r WHERE n <= {}",
            1 + dice.below(3)
        ),
        7 => format!(
            "SELECT COUNT(*) AS n, SUM(x) AS x FROM (SELECT DISTINCT k, x FROM ({r}) AS r \
             ORDER BY k NULLS LAST, x NULLS LAST LIMIT {} OFFSET {}) AS r",
            1 + dice.below(30),
            dice.below(5)
        ),
        _ => format!(
            "SELECT k, g, COUNT(*) AS n, SUM(y) AS y FROM ({r}) AS r GROUP BY {} ",
            dice.one_of(&[
                "GROUPING SETS ((k, g), (k), ())",
                "ROLLUP (k, g)",
                "CUBE (k, g)",
                "GROUPING SETS ((g), (k), (k, g))",
            ])
        ),
    }
}

/// Whether a statement orders its rows by all their columns.
pub fn is_ordered(statement: &str) -> bool {
    let after = statement.rsplit_once(')').map_or(statement, |(_, after)| after);
    after.contains(" ORDER BY ")
}

fn relation(dice: &mut Dice, depth: u64) -> Relation {
    if depth == 0 {
        return base(dice);
    }
    match dice.below(13) {
        0 => base(dice),
        1 | 2 => union(dice, depth),
        3..=5 => join(dice, depth),
        6 | 7 => filtered(dice, depth),
        8 => limited(dice, depth),
        9 => windowed(dice, depth),
        10 => grouped(dice, depth),
        11 => sorted(dice, depth),
        _ => {
            let Relation { sql, n_rows } = relation(dice, depth - 1);
            Relation::new(format!("SELECT DISTINCT k, g, x, y FROM ({sql}) AS d"), n_rows)
        }
    }
}

fn relation_below(dice: &mut Dice, depth: u64) -> Relation {
    relation(dice, depth - 1)
}

/// What is stored, what is constant, and what the planner may answer without reading.
fn base(dice: &mut Dice) -> Relation {
    let flights = "SELECT origin AS k, carrier AS g, CAST(FLOOR(distance_miles) AS BIGINT) AS x, \
                   CAST(FLOOR(arr_delay_minutes) AS BIGINT) AS y FROM flights";
    let (month, day) = (1 + dice.below(12), 1 + dice.below(28));
    match dice.below(12) {
        0 => {
            Relation::new(format!("{flights} WHERE EXTRACT(DAY FROM flight_date) = {day}"), 12_000)
        }
        1..=3 => Relation::new(
            format!("{flights} WHERE month = {month} AND EXTRACT(DAY FROM flight_date) = {day}"),
            1_100,
        ),
        4 => Relation::new(
            "SELECT origin AS k, dest AS g, CAST(FLOOR(distance_miles) AS BIGINT) AS x, \
             CAST(NULL AS BIGINT) AS y FROM distances",
            300,
        ),
        5 | 6 => Relation::new(
            "SELECT k, g, x, y FROM (VALUES ('EWR', 'UA', 1400, 2), ('EWR', 'UA', 1400, 2), \
             ('JFK', NULL, 2475, -7), (NULL, 'AA', NULL, 0), ('XXX', 'ZZ', 1, NULL), \
             ('LGA', 'DL', 502, 31)) AS t(k, g, x, y)",
            6,
        ),
        7 => Relation::new(
            "SELECT 'EWR' AS k, CAST(NULL AS VARCHAR) AS g, CAST(7 AS BIGINT) AS x, \
             CAST(1 AS BIGINT) AS y",
            1,
        ),
        8 => Relation::new(
            "SELECT 'all' AS k, CAST(NULL AS VARCHAR) AS g, COUNT(*) AS x, \
             CAST(NULL AS BIGINT) AS y FROM flights",
            1,
        ),
        9 => Relation::new(format!("{flights} WHERE FALSE"), 0),
        10 => Relation::new(
            "SELECT MIN(origin) AS k, MAX(carrier) AS g, CAST(FLOOR(MAX(distance_miles)) AS BIGINT) AS x, \
             COUNT(arr_delay_minutes) AS y FROM flights",
            1,
        ),
        _ => Relation::new(
            format!(
                "SELECT origin AS k, dest AS g, COUNT(*) AS x, \
                 CAST(FLOOR(SUM(arr_delay_minutes)) AS BIGINT) AS y FROM flights \
                 WHERE month <= {month} GROUP BY origin, dest"
            ),
            300,
        ),
    }
}

fn union(dice: &mut Dice, depth: u64) -> Relation {
    // sorted sides are where planners take sorts away
    let of = [limited, sorted, relation_below, relation_below][dice.below(4) as usize];
    let (a, b) = (of(dice, depth), of(dice, depth));
    let kind = dice.one_of(&["UNION ALL", "UNION ALL", "UNION", "EXCEPT", "INTERSECT"]);
    Relation::new(
        format!(
            "SELECT k, g, x, y FROM ({}) AS a {kind} SELECT k, g, x, y FROM ({}) AS b",
            a.sql, b.sql
        ),
        a.n_rows + b.n_rows,
    )
}

fn limited(dice: &mut Dice, depth: u64) -> Relation {
    let Relation { sql, n_rows } = relation(dice, depth - 1);
    let n = 1 + dice.below(200);
    let offset = dice.below(4) * 3;
    let order =
        dice.one_of(&[ORDER, "x DESC NULLS LAST, k NULLS LAST, g NULLS LAST, y NULLS LAST"]);
    let sql =
        format!("SELECT k, g, x, y FROM ({sql}) AS l ORDER BY {order} LIMIT {n} OFFSET {offset}");
    Relation::new(sql, n_rows.min(n))
}

/// All rows in an order that has ties: the limit, which keeps it, is beyond them.
fn sorted(dice: &mut Dice, depth: u64) -> Relation {
    let Relation { sql, n_rows } = relation(dice, depth - 1);
    let order = dice.one_of(&["k NULLS LAST", "k NULLS FIRST, g", "g, x DESC", "x NULLS FIRST"]);
    let sql = format!("SELECT k, g, x, y FROM ({sql}) AS o ORDER BY {order} LIMIT 10000000");
    Relation::new(sql, n_rows)
}

/// As many rows of a relation as may be compared with `other` rows.
fn at_most(r: Relation, n: u64) -> Relation {
    if r.n_rows <= n {
        return r;
    }
    let sql = format!("SELECT k, g, x, y FROM ({}) AS m ORDER BY {ORDER} LIMIT {n}", r.sql);
    Relation::new(sql, n)
}

/// Joins of every kind, with an equality and without.
fn join(dice: &mut Dice, depth: u64) -> Relation {
    let (a, b) = (relation(dice, depth - 1), relation(dice, depth - 1));
    let (a, b) = (at_most(a, 12_000), at_most(b, 12_000));
    let b = at_most(b, (PAIRS_MAX / a.n_rows.max(1)).max(1));
    let kind = dice.one_of(&[
        "INNER JOIN",
        "LEFT JOIN",
        "RIGHT JOIN",
        "FULL JOIN",
        "LEFT SEMI JOIN",
        "LEFT ANTI JOIN",
        "CROSS JOIN",
    ]);
    let on = dice.one_of(&[
        "a.k = b.k",
        "a.k = b.k AND a.g = b.g",
        "a.k = b.k AND a.x > b.x",
        "a.x = b.x",
        "(a.k IS NOT DISTINCT FROM b.k) AND a.g = b.g",
        "a.x > b.x + 900",
        "a.x BETWEEN b.x - 3 AND b.x + 3",
        "a.k <> b.k OR a.y > b.y",
    ]);
    let on = if kind == "CROSS JOIN" { String::new() } else { format!(" ON {on}") };
    let is_of_one_side = kind.ends_with("SEMI JOIN") || kind.ends_with("ANTI JOIN");
    let columns = match is_of_one_side {
        true => "a.k, a.g, a.x, a.y",
        false => dice.one_of(&[
            "a.k AS k, b.g AS g, a.x AS x, b.y AS y",
            "b.k AS k, b.g AS g, a.x AS x, a.y AS y",
        ]),
    };
    let n_rows = if is_of_one_side { a.n_rows } else { a.n_rows * b.n_rows + a.n_rows + b.n_rows };
    Relation::new(
        format!("SELECT {columns} FROM ({}) AS a {kind} ({}) AS b{on}", a.sql, b.sql),
        n_rows,
    )
}

/// Conditions, subqueries among them.
fn filtered(dice: &mut Dice, depth: u64) -> Relation {
    let a = at_most(relation(dice, depth - 1), 12_000);
    let b = at_most(relation(dice, depth - 1), (PAIRS_MAX / a.n_rows.max(1)).max(1)).sql;
    let n = dice.below(20) * 100;
    let condition = match dice.below(12) {
        0 => format!("x % 7 <> 1 AND y > {}", n / 100),
        1 => format!("k IN (SELECT k FROM ({b}) AS b)"),
        2 => format!("k NOT IN (SELECT k FROM ({b}) AS b)"),
        3 => format!("k NOT IN (SELECT k FROM ({b}) AS b WHERE k IS NOT NULL)"),
        4 => format!("EXISTS (SELECT 1 FROM ({b}) AS b WHERE b.x > a.x + {n})"),
        5 => format!("NOT EXISTS (SELECT 1 FROM ({b}) AS b WHERE b.x > a.x + {n})"),
        6 => format!("EXISTS (SELECT 1 FROM ({b}) AS b WHERE b.k = a.k AND b.g = a.g)"),
        7 => format!("NOT EXISTS (SELECT 1 FROM ({b}) AS b WHERE b.k = a.k AND b.x <> a.x)"),
        8 => format!("x > (SELECT MAX(x) - {n} FROM ({b}) AS b)"),
        9 => format!("x >= (SELECT COUNT(*) FROM ({b}) AS b WHERE b.k = a.k)"),
        10 => format!("(x > {n} OR EXISTS (SELECT 1 FROM ({b}) AS b WHERE b.g = a.g))"),
        _ => format!("g IN (SELECT g FROM ({b}) AS b WHERE b.k = a.k)"),
    };
    Relation::new(format!("SELECT k, g, x, y FROM ({}) AS a WHERE {condition}", a.sql), a.n_rows)
}

fn windowed(dice: &mut Dice, depth: u64) -> Relation {
    let Relation { sql, n_rows } = relation(dice, depth - 1);
    let function =
        dice.one_of(&["ROW_NUMBER()", "RANK()", "SUM(x)", "COUNT(*)", "LAG(x)", "MAX(y)"]);
    let over = dice.one_of(&[
        "PARTITION BY k ORDER BY g NULLS LAST, x NULLS LAST, y NULLS LAST",
        "ORDER BY k NULLS LAST, g NULLS LAST, x NULLS LAST, y NULLS LAST",
        "PARTITION BY k, g ORDER BY x DESC NULLS LAST, y NULLS LAST",
    ]);
    Relation::new(
        format!("SELECT k, g, x, CAST({function} OVER ({over}) AS BIGINT) AS y FROM ({sql}) AS w"),
        n_rows,
    )
}

fn grouped(dice: &mut Dice, depth: u64) -> Relation {
    let Relation { sql, n_rows } = relation(dice, depth - 1);
    let sets = dice.one_of(&["k, g", "ROLLUP (k, g)", "GROUPING SETS ((k, g), ())", "CUBE (k, g)"]);
    Relation::new(
        format!(
            "SELECT k, g, COUNT(*) AS x, CAST(SUM(x) AS BIGINT) AS y FROM ({sql}) AS q \
             GROUP BY {sets}"
        ),
        n_rows.max(1) * 2,
    )
}
