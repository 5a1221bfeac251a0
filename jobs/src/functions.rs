//! What the steps need and SQL cannot say well. A clock time and a code are read by the very
//! functions that read a request, so that the same flight is the same in both.
//!
//! - `flight_id(date, carrier, flight number, origin, dest, scheduled departure)`: a 64-bit hash of
//!   what names a flight. It decides, without any order of rows, which flights are held out and
//!   which trees see a flight. Never changes: a model's bytes depend on it.
//! - `utc_of(airport, date, minutes)`: the instant at minutes of the local day of an airport, null
//!   where its zone is not known; see [`crate::zones`].
//! - `clock_minutes(hhmm)`: minutes of the day, null for what is no time of day.
//! - `flight_code(text)`: a code as it is kept, null where nothing is left of it; `is_code(text)`:
//!   whether it is one that can be asked for.
//! - `written_day(text, utc)`, `written_time(text)`, `written_hhmm(text, utc)`: what a text that a
//!   program wrote says: the day, the point in time, the clock time as `HHMM`; see
//!   [`crate::clock`].
//!   With `utc` an instant is read by its UTC clock, otherwise as it stands there.
//! - `named_uuid(uuid, file, line)`: the UUID that a row says, in the one form that documents are
//!   kept under; null when it says something else. One that says none is named after its place.
//! - `held_out(rule, flight_id, day)`: whether a flight is held out of training, by a rule such as
//!   `day:5`; see [`HoldOut`]. A day is a number of days since 1970-01-01.
//! - `log_loss_billionths(probability)`: -ln(probability) in whole billionths, the same on every
//!   processor; less than 1e-15 counts as that.
//! - `probability_of(class, probabilities)`: the one of that class.
//! - `uncalibrated(probabilities, temperature)`: what they were before they were calibrated by a
//!   temperature.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, AsArray, BooleanArray, BooleanBuilder, Date32Array, Float64Array, Int32Array,
    Int64Array, StringViewArray, TimestampMicrosecondArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Float64Type, Int32Type, Int64Type, TimeUnit, UInt64Type,
};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, create_udf,
};
use events::{clock_minutes, flight_code, is_code, parse_uuid};
use sha2::{Digest, Sha256};
use udf::functions::classes;
use udf::model::artefact::{TEMPERATURE_MAX, TEMPERATURE_MIN};
use udf::model::calibration::{calibrate, log_loss_billionths};
use udf::model::holdout::HoldOut;
use udf::train::sampling::{GOLDEN, hash_text, mix};
use uuid::Uuid;

use crate::clock::{Written, hhmm};
use crate::zones::{Clocks, UTC};

/// The functions, for registration in a session.
pub fn scalar_functions() -> Vec<ScalarUDF> {
    [functions_of_rows(), functions_of_models()].concat()
}

/// What flights are made by.
fn functions_of_rows() -> Vec<ScalarUDF> {
    let minutes = |args: &[ColumnarValue]| {
        let [hhmm] = ColumnarValue::values_to_arrays(args)?.try_into().expect("one argument");
        let minutes = hhmm.as_primitive::<Int32Type>().iter().map(|t| t.and_then(clock_minutes));
        Ok(ColumnarValue::Array(Arc::new(minutes.collect::<Int32Array>())))
    };
    let code = |args: &[ColumnarValue]| {
        let [text] = ColumnarValue::values_to_arrays(args)?.try_into().expect("one argument");
        let codes = text.as_string_view().iter().map(|text| text.and_then(flight_code));
        Ok(ColumnarValue::Array(Arc::new(codes.collect::<StringViewArray>())))
    };
    let asked_for = |args: &[ColumnarValue]| {
        let [text] = ColumnarValue::values_to_arrays(args)?.try_into().expect("one argument");
        let are_codes = text.as_string_view().iter().map(|text| text.map(is_code));
        Ok(ColumnarValue::Array(Arc::new(are_codes.collect::<BooleanArray>())))
    };
    // null where the text is null or says no such thing
    let day = |args: &[ColumnarValue]| {
        let [text, utc] = ColumnarValue::values_to_arrays(args)?.try_into().expect("two arguments");
        let days =
            text.as_string_view().iter().zip(utc.as_boolean()).map(|(text, utc)| {
                Written::parse(text?).map(|written| written.day(utc == Some(true)))
            });
        Ok(ColumnarValue::Array(Arc::new(days.collect::<Date32Array>())))
    };
    let time = |args: &[ColumnarValue]| {
        let [text] = ColumnarValue::values_to_arrays(args)?.try_into().expect("one argument");
        let times = text.as_string_view().iter();
        let times =
            times.map(|text| Some(Written::parse(text?)?.utc().and_utc().timestamp_micros()));
        Ok(ColumnarValue::Array(Arc::new(times.collect::<TimestampMicrosecondArray>())))
    };
    let clock = |args: &[ColumnarValue]| {
        let [text, utc] = ColumnarValue::values_to_arrays(args)?.try_into().expect("two arguments");
        let times = text.as_string_view().iter().zip(utc.as_boolean());
        let times = times.map(|(text, utc)| hhmm(text?, utc == Some(true)));
        Ok(ColumnarValue::Array(Arc::new(times.collect::<Int32Array>())))
    };
    let (int, text) = (DataType::Int32, DataType::Utf8View);
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, None);
    let text_and_utc = || vec![DataType::Utf8View, DataType::Boolean];
    let immutable = Volatility::Immutable;
    vec![
        FlightId::default().into(),
        create_udf("clock_minutes", vec![int.clone()], int, immutable, Arc::new(minutes)),
        create_udf("flight_code", vec![text.clone()], text.clone(), immutable, Arc::new(code)),
        create_udf(
            "is_code",
            vec![text.clone()],
            DataType::Boolean,
            immutable,
            Arc::new(asked_for),
        ),
        create_udf("written_day", text_and_utc(), DataType::Date32, immutable, Arc::new(day)),
        create_udf("written_time", vec![text], timestamp, immutable, Arc::new(time)),
        named_uuid(),
        utc_of(),
        create_udf("written_hhmm", text_and_utc(), DataType::Int32, immutable, Arc::new(clock)),
    ]
}

/// See [`self`].
fn utc_of() -> ScalarUDF {
    let instants = |args: &[ColumnarValue]| {
        let [airports, days, minutes] =
            ColumnarValue::values_to_arrays(args)?.try_into().expect("three arguments");
        let days = days.as_primitive::<Date32Type>().iter();
        let times = days.zip(minutes.as_primitive::<Int32Type>());
        let mut clocks = Clocks::default();
        let instants = airports.as_string_view().iter().zip(times);
        let instants =
            instants.map(|(airport, (day, minutes))| clocks.instant(airport?, day?, minutes?));
        let instants = instants.collect::<TimestampMicrosecondArray>().with_timezone(UTC);
        Ok(ColumnarValue::Array(Arc::new(instants)))
    };
    let local = vec![DataType::Utf8View, DataType::Date32, DataType::Int32];
    let instant = DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()));
    create_udf("utc_of", local, instant, Volatility::Immutable, Arc::new(instants))
}

/// See [`self`].
fn named_uuid() -> ScalarUDF {
    let named = |args: &[ColumnarValue]| {
        let [uuids, files, lines] =
            ColumnarValue::values_to_arrays(args)?.try_into().expect("three arguments");
        let (uuids, files) = (uuids.as_string_view().iter(), files.as_string_view());
        let places = files.iter().zip(lines.as_primitive::<UInt64Type>());
        let uuids = uuids.zip(places).map(|(text, (file, line))| match text {
            Some(text) => parse_uuid(text),
            None => Some(place_uuid(file?, line?)),
        });
        let texts = uuids.map(|uuid| Some(uuid?.to_string())).collect::<StringViewArray>();
        Ok(ColumnarValue::Array(Arc::new(texts)))
    };
    let of_row = vec![DataType::Utf8View, DataType::Utf8View, DataType::UInt64];
    create_udf("named_uuid", of_row, DataType::Utf8View, Volatility::Immutable, Arc::new(named))
}

/// Names a row after its place: the same at each reading, and no other row's.
fn place_uuid(file: &str, line: u64) -> Uuid {
    let digest = Sha256::digest(format!("{file}\n{line}"));
    let (bytes, _) = digest.split_first_chunk().expect("a digest has 32 bytes");
    uuid::Builder::from_custom_bytes(*bytes).into_uuid()
}

/// What models are made and judged by.
fn functions_of_models() -> Vec<ScalarUDF> {
    let held_out = |args: &[ColumnarValue]| {
        let [rules, ids, days] =
            ColumnarValue::values_to_arrays(args)?.try_into().expect("three arguments");
        let (rules, ids, days) =
            (rules.as_string_view(), ids.as_primitive::<Int64Type>(), days.as_primitive());
        let mut known: Option<(&str, HoldOut)> = None;
        let mut are_held_out = BooleanBuilder::with_capacity(ids.len());
        for ((rule, id), day) in rules.iter().zip(ids).zip(days as &Int32Array) {
            let (Some(rule), Some(id), Some(day)) = (rule, id, day) else {
                are_held_out.append_null();
                continue;
            };
            if known.as_ref().is_none_or(|(text, _)| *text != rule) {
                let parsed = rule.parse().map_err(|e| exec_datafusion_err!("held_out: {e}"))?;
                known = Some((rule, parsed));
            }
            are_held_out.append_option(known.as_ref().map(|(_, rule)| rule.holds(id, day)));
        }
        Ok(ColumnarValue::Array(Arc::new(are_held_out.finish())))
    };
    let log_loss = |args: &[ColumnarValue]| {
        let [shares] = ColumnarValue::values_to_arrays(args)?.try_into().expect("one argument");
        let losses = shares.as_primitive::<Float64Type>().unary(log_loss_billionths);
        Ok(ColumnarValue::Array(Arc::new(losses as Int64Array)))
    };
    let of_flight = vec![DataType::Utf8View, DataType::Int64, DataType::Int32];
    let immutable = Volatility::Immutable;
    vec![
        create_udf("held_out", of_flight, DataType::Boolean, immutable, Arc::new(held_out)),
        create_udf(
            "log_loss_billionths",
            vec![DataType::Float64],
            DataType::Int64,
            immutable,
            Arc::new(log_loss),
        ),
        probability_of(),
        uncalibrated(),
    ]
}

/// See [`self`].
fn probability_of() -> ScalarUDF {
    let of_class = |args: &[ColumnarValue]| {
        let [classes, lists] =
            ColumnarValue::values_to_arrays(args)?.try_into().expect("two arguments");
        let classes = classes.as_primitive::<Int32Type>().iter();
        let rows = classes.zip(classes::numbers(&lists)?).enumerate();
        let probabilities = rows.map(|(row, (class, probabilities))| {
            let Some(class) = class.filter(|_| lists.is_valid(row)) else { return Ok(None) };
            let probability =
                usize::try_from(class).ok().and_then(|class| probabilities.get(class));
            let none = || exec_datafusion_err!("probability_of: there is no class {class}");
            probability.copied().map(Some).ok_or_else(none)
        });
        Ok(ColumnarValue::Array(Arc::new(probabilities.collect::<Result<Float64Array>>()?)))
    };
    let of_row = vec![DataType::Int32, classes::class_list()];
    let immutable = Volatility::Immutable;
    create_udf("probability_of", of_row, DataType::Float64, immutable, Arc::new(of_class))
}

/// See [`self`].
fn uncalibrated() -> ScalarUDF {
    let before = |args: &[ColumnarValue]| {
        let [ColumnarValue::Array(lists), ColumnarValue::Scalar(temperature)] = args else {
            return exec_err!("uncalibrated needs probabilities of rows and one temperature");
        };
        let ScalarValue::Float64(Some(temperature @ TEMPERATURE_MIN..=TEMPERATURE_MAX)) =
            temperature
        else {
            return exec_err!("{temperature} is no temperature of a model");
        };
        let mut rows = classes::numbers(lists)?.to_vec();
        calibrate(&mut rows, 1.0 / temperature);
        Ok(ColumnarValue::Array(classes::by_class(rows.into_flattened(), lists.nulls())?))
    };
    let of_row = vec![classes::class_list(), DataType::Float64];
    let immutable = Volatility::Immutable;
    create_udf("uncalibrated", of_row, classes::class_list(), immutable, Arc::new(before))
}

/// The same of the texts of one flight.
pub(crate) fn flight_id(parts: [Option<&str>; 6]) -> i64 {
    mix(parts.into_iter().fold(GOLDEN, with_part)).cast_signed()
}

/// What becomes of an id by one more part of a flight's name.
fn with_part(id: u64, part: Option<&str>) -> u64 {
    let part = part.map_or(u64::MAX, hash_text);
    mix(id ^ part).wrapping_add(GOLDEN)
}

/// See [`self`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FlightId {
    signature: Signature,
}

impl Default for FlightId {
    fn default() -> Self {
        Self { signature: Signature::any(6, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for FlightId {
    fn name(&self) -> &str {
        "flight_id"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut ids = vec![GOLDEN; args.number_rows];
        for column in ColumnarValue::values_to_arrays(&args.args)? {
            // text is what all layouts agree on; a null counts as one, and differs from ''
            let column = cast(&column, &DataType::Utf8View)?;
            let column = column.as_string_view();
            for (i, id) in ids.iter_mut().enumerate() {
                *id = with_part(*id, column.is_valid(i).then(|| column.value(i)));
            }
        }
        let ids = Int64Array::from_iter_values(ids.into_iter().map(|id| mix(id).cast_signed()));
        Ok(ColumnarValue::Array(Arc::new(ids)))
    }
}
