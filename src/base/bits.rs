//! Numbers that travel as their bits (`#[serde(with = "bits")]`): JSON has no NaN and no infinity.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What has the bits of its numbers.
pub trait Bits: Sized {
    /// How they travel.
    type Carried: Serialize + DeserializeOwned;
    /// The bits.
    fn carried(&self) -> Self::Carried;
    /// The numbers of these bits.
    fn arrived(carried: Self::Carried) -> Self;
}

impl Bits for f64 {
    type Carried = u64;

    fn carried(&self) -> u64 {
        self.to_bits()
    }

    fn arrived(carried: u64) -> f64 {
        f64::from_bits(carried)
    }
}

impl<T: Bits> Bits for Vec<T> {
    type Carried = Vec<T::Carried>;

    fn carried(&self) -> Self::Carried {
        self.iter().map(T::carried).collect()
    }

    fn arrived(carried: Self::Carried) -> Vec<T> {
        carried.into_iter().map(T::arrived).collect()
    }
}

/// For serde.
pub fn serialize<T: Bits, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    value.carried().serialize(serializer)
}

/// For serde.
pub fn deserialize<'de, T: Bits, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::Carried::deserialize(deserializer).map(T::arrived)
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Row(#[serde(with = "super")] Vec<Vec<f64>>);

    #[test]
    fn every_number_arrives() {
        let row = Row(vec![vec![f64::NEG_INFINITY, 0.1], vec![], vec![f64::NAN, -0.0]]);
        let Row(found) = serde_json::from_str(&serde_json::to_string(&row).unwrap()).unwrap();
        let bits = |rows: &[Vec<f64>]| -> Vec<u64> {
            rows.iter().flatten().map(|number| number.to_bits()).collect()
        };
        assert_eq!((bits(&found), found.len()), (bits(&row.0), 3));
    }
}
