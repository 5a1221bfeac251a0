//! How many questions each client has left for the night.

use std::collections::HashMap;

use chrono::NaiveDate;
use parking_lot::Mutex;

use crate::http::clients::Client;

/// Questions of a client and a day: a twentieth of what is taken from all.
const OF_CLIENT_MAX: u32 = 1_000;

/// The questions of a day, by client, as this process has seen them.
#[derive(Debug, Default)]
pub(crate) struct Night(Mutex<(NaiveDate, HashMap<Client, u32>)>);

impl Night {
    /// Counts a question of a client; whether it may still ask one on this day.
    pub(crate) fn take(&self, client: Client, day: NaiveDate) -> bool {
        let mut night = self.0.lock();
        if night.0 != day {
            *night = (day, HashMap::new());
        }
        let n_asked = night.1.get(&client).copied().unwrap_or_default();
        if n_asked < OF_CLIENT_MAX {
            night.1.insert(client, n_asked + 1);
        }
        n_asked < OF_CLIENT_MAX
    }

    /// Takes a question back that was not kept, so that there are never more clients here than
    /// questions are kept.
    pub(crate) fn give_back(&self, client: Client) {
        let mut night = self.0.lock();
        match night.1.get_mut(&client) {
            Some(n_asked) if *n_asked > 1 => *n_asked -= 1,
            _ => drop(night.1.remove(&client)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn a_client_may_not_ask_for_all_and_may_again_on_the_next_day() {
        let night = Night::default();
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|text| {
            let address: IpAddr = text.parse().unwrap();
            Client::from(address)
        });
        let day = NaiveDate::from_ymd_opt(2026, 11, 28).unwrap();
        assert!((0..OF_CLIENT_MAX).all(|_| night.take(one, day)));
        assert!(!night.take(one, day) && night.take(other, day));
        night.give_back(one);
        assert!(night.take(one, day) && !night.take(one, day));
        assert!(night.take(one, day.succ_opt().unwrap()));
        assert_eq!(night.0.lock().1.len(), 1, "the day before is forgotten");
    }
}
