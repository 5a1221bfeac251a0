//! The requests of a micro-batch as the relation `flights`, so that the steps which training uses
//! make features of them. The relation is registered once, and filled for each micro-batch.

use std::sync::Arc;

use anyhow::Result;
use datafusion::arrow::array::{
    Array, BooleanArray, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringViewArray, new_null_array,
};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::SessionContext;
use events::{PredictionRequest, clock_minutes};
use parking_lot::Mutex;

use crate::features::flights_schema;

/// What `flights` holds at present.
#[derive(Debug)]
pub struct Requests {
    schema: SchemaRef,
    batch: Mutex<RecordBatch>,
}

impl Requests {
    /// Registers `flights` with `ctx`; it holds nothing.
    pub fn register(ctx: &SessionContext) -> Result<Arc<Self>> {
        let schema = flights_schema();
        let batch = Mutex::new(RecordBatch::new_empty(Arc::clone(&schema)));
        let requests = Arc::new(Self { schema, batch });
        let partition: Arc<dyn PartitionStream> = Arc::clone(&requests) as _;
        let table = StreamingTable::try_new(Arc::clone(&requests.schema), vec![partition])?;
        ctx.deregister_table("flights")?;
        ctx.register_table("flights", Arc::new(table))?;
        Ok(requests)
    }

    /// Makes `flights` these requests, and nothing else.
    pub fn fill(&self, requests: &[PredictionRequest]) -> Result<()> {
        let batch = flights_of(requests, &self.schema)?;
        *self.batch.lock() = batch;
        Ok(())
    }
}

impl PartitionStream for Requests {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batch = self.batch.lock().clone();
        let batches = futures::stream::iter([Ok(batch)]);
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

/// The requests as the relation `flights`; `flight_id` is the position of the request.
fn flights_of(requests: &[PredictionRequest], schema: &SchemaRef) -> Result<RecordBatch> {
    let texts = |of: fn(&PredictionRequest) -> Option<&str>| -> Arc<dyn Array> {
        Arc::new(requests.iter().map(of).collect::<StringViewArray>())
    };
    let minutes = |of: fn(&PredictionRequest) -> Option<i32>| -> Arc<dyn Array> {
        Arc::new(requests.iter().map(|r| of(r).and_then(clock_minutes)).collect::<Int32Array>())
    };
    let days = requests.iter().map(|r| r.flight_date.to_epoch_days());
    let n_rows = requests.len();
    let columns: Vec<Arc<dyn Array>> = vec![
        Arc::new(Int64Array::from_iter_values(0..n_rows as i64)),
        Arc::new(Date32Array::from_iter_values(days)),
        texts(|r| Some(&r.carrier)),
        texts(|r| r.flight_num.as_deref()),
        texts(|r| Some(&r.origin)),
        texts(|r| Some(&r.dest)),
        minutes(|r| r.crs_dep_time),
        Arc::new(Float64Array::from_iter_values(requests.iter().map(|r| r.dep_delay))),
        minutes(|r| r.crs_arr_time),
        new_null_array(&DataType::Float64, n_rows),
        Arc::new(requests.iter().map(|r| r.distance).collect::<Float64Array>()),
        Arc::new(BooleanArray::from(vec![false; n_rows])),
        Arc::new(BooleanArray::from(vec![false; n_rows])),
    ];
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
