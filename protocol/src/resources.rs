//! **The table** of what a session may use: its limits, as a client or an operator asks for them.
//!
//! From one table come the struct, the text form (`memory=2G,time=30s`), the JSON form and the names in help
//! texts. How limits are enforced never lives here: that is the pool's and the kernel's.

mod error;
mod json;
mod quantity;
#[cfg(test)]
mod tests;

pub use error::LimitError;
pub use quantity::{Amount, Unit};

use crate::limits::{
    CPU_LIMIT_S_MAX, CPU_LIMIT_S_MIN, DISK_LIMIT_BYTES_MAX, DISK_LIMIT_BYTES_MIN, FILE_LIMIT_BYTES_MAX,
    FILE_LIMIT_BYTES_MIN, LIMITS_TEXT_BYTES_MAX, MEMORY_LIMIT_BYTES_MAX, MEMORY_LIMIT_BYTES_MIN,
    OPEN_FILES_LIMIT_MAX, OPEN_FILES_LIMIT_MIN, OUTPUT_LIMIT_BYTES_MAX, OUTPUT_LIMIT_BYTES_MIN,
    PROCESSES_LIMIT_MAX, PROCESSES_LIMIT_MIN, TIME_LIMIT_MS_MAX, TIME_LIMIT_MS_MIN,
};

macro_rules! table {
    ($($limit:ident $name:literal $field:ident $unit:ident $least:ident $most:ident $example:literal $doc:literal;)*) => {
        /// The limits of one session; what is absent is not limited.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Limits { $(#[doc = $doc] pub $field: Option<u64>,)* }

        /// A row of the table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Limit { $(#[doc = $doc] $limit,)* }

        impl Limit {
            /// Every row.
            pub const ALL: &'static [Self] = &[$(Self::$limit),*];
            /// The names of all rows, as in help texts.
            pub const NAMES: &'static [&'static str] = &[$($name),*];

            /// What it is called in texts and in JSON.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$limit => $name,)* }
            }

            /// What it is counted in.
            #[must_use]
            pub fn unit(self) -> Unit {
                match self { $(Self::$limit => Unit::$unit,)* }
            }

            /// The smallest value that makes sense.
            #[must_use]
            pub fn least(self) -> u64 {
                match self { $(Self::$limit => $least,)* }
            }

            /// The largest value that makes sense.
            #[must_use]
            pub fn most(self) -> u64 {
                match self { $(Self::$limit => $most,)* }
            }

            /// A usual value, as it is written.
            #[must_use]
            pub fn example(self) -> &'static str {
                match self { $(Self::$limit => $example,)* }
            }

            /// What it limits: one sentence.
            #[must_use]
            pub fn doc(self) -> &'static str {
                match self { $(Self::$limit => $doc,)* }
            }
        }

        impl Limits {
            /// The value of one row.
            #[must_use]
            pub fn get(&self, limit: Limit) -> Option<u64> {
                match limit { $(Limit::$limit => self.$field,)* }
            }

            fn slot(&mut self, limit: Limit) -> &mut Option<u64> {
                match limit { $(Limit::$limit => &mut self.$field,)* }
            }
        }
    };
}

table! {
    Memory "memory" memory_bytes Bytes MEMORY_LIMIT_BYTES_MIN MEMORY_LIMIT_BYTES_MAX "512M"
        "Memory of all its processes together, in bytes.";
    Cpu "cpu" cpu_s Seconds CPU_LIMIT_S_MIN CPU_LIMIT_S_MAX "60s"
        "Processor time of its worker, in seconds.";
    Time "time" time_ms Milliseconds TIME_LIMIT_MS_MIN TIME_LIMIT_MS_MAX "30s"
        "Time that one execution may take, in milliseconds. It stands still while a person is asked.";
    Processes "processes" processes Count PROCESSES_LIMIT_MIN PROCESSES_LIMIT_MAX "64"
        "Processes and threads at a time.";
    OpenFiles "open_files" open_files Count OPEN_FILES_LIMIT_MIN OPEN_FILES_LIMIT_MAX "256"
        "Descriptors that one process may have open.";
    File "file" file_bytes Bytes FILE_LIMIT_BYTES_MIN FILE_LIMIT_BYTES_MAX "100M"
        "Size of one file that is written, in bytes.";
    Disk "disk" disk_bytes Bytes DISK_LIMIT_BYTES_MIN DISK_LIMIT_BYTES_MAX "1G"
        "Size of everything in the working directory, in bytes.";
    Output "output" output_bytes Bytes OUTPUT_LIMIT_BYTES_MIN OUTPUT_LIMIT_BYTES_MAX "16M"
        "Stream text kept per execution, in bytes; what is printed beyond it is counted, and its tail kept.";
}

impl Limit {
    /// The row of this name.
    ///
    /// # Errors
    /// [`LimitError::UnknownName`], with the name that was probably meant.
    pub fn named(name: &str) -> Result<Self, LimitError> {
        let found = Self::ALL.iter().copied().find(|limit| limit.name() == name);
        found.ok_or_else(|| LimitError::unknown(name))
    }

    /// A value in the unit of the row, if it makes sense.
    fn check(self, value: u64, given: &str) -> Result<u64, LimitError> {
        match value {
            _ if value < self.least() => Err(LimitError::too_small(self, given)),
            _ if value > self.most() => Err(LimitError::too_large(self, given)),
            _ => Ok(value),
        }
    }

    /// A value as it is written: `2G`, `30s`, `64`.
    fn read(self, text: &str) -> Result<u64, LimitError> {
        self.check(quantity::read(self, text)?, text)
    }
}

impl Limits {
    /// Reads `memory=2G,cpu=60s,time=30s,…`; an empty text limits nothing. Sizes are binary (`K`, `M`, `G`, `T`,
    /// with or without `iB` or `B`), durations say their unit (`ms`, `s`, `m`, `h`).
    ///
    /// # Errors
    /// [`LimitError`] with the first thing that is wrong, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, LimitError> {
        let mut limits = Self::default();
        if text.len() > LIMITS_TEXT_BYTES_MAX {
            return Err(LimitError::TooLong);
        }
        if text.trim().is_empty() {
            return Ok(limits);
        }
        for pair in text.split(',') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let limit = Limit::named(name.trim())?;
            limits.put(limit, limit.read(value.trim())?)?;
        }
        Ok(limits)
    }

    /// What holds for a session that asks for `self` where an operator allows `ceiling`: what it asks for, and the
    /// ceiling's value where it asks for nothing.
    ///
    /// # Errors
    /// [`LimitError::AboveCeiling`] when it asks for more than the operator allows.
    pub fn within(&self, ceiling: &Self) -> Result<Self, LimitError> {
        for &limit in Limit::ALL {
            if let (Some(value), Some(most)) = (self.get(limit), ceiling.get(limit))
                && value > most
            {
                return Err(LimitError::AboveCeiling { limit, value, most });
            }
        }
        Ok(self.merge(ceiling))
    }

    /// `self`, and `others` where `self` says nothing.
    #[must_use]
    pub fn merge(&self, others: &Self) -> Self {
        let mut merged = self.clone();
        for &limit in Limit::ALL {
            let slot = merged.slot(limit);
            *slot = slot.or(others.get(limit));
        }
        merged
    }

    /// The rows that are limited, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = (Limit, u64)> + '_ {
        Limit::ALL.iter().filter_map(|&limit| Some((limit, self.get(limit)?)))
    }

    fn put(&mut self, limit: Limit, value: u64) -> Result<(), LimitError> {
        match self.slot(limit).replace(value) {
            None => Ok(()),
            Some(_) => Err(LimitError::Twice { limit }),
        }
    }
}

impl std::str::FromStr for Limits {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        Self::parse(text)
    }
}

/// As [`Limits::parse`] reads it.
impl std::fmt::Display for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (limit, value)) in self.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{}={}", limit.name(), Amount { unit: limit.unit(), value })?;
        }
        Ok(())
    }
}
