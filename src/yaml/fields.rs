//! Which keys a type takes at a path, learned by letting serde ask for them.
//!
//! A deserializer that holds no data walks down the path, offering one key at each level. The struct at its end announces its fields,
//! which are noted, and the walk ends with an error.

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, Visitor,
};
use serde::de::{IntoDeserializer, value::Error};

/// The keys of the struct at `path` in `T`, with its aliases; `None` where there is no struct.
pub(super) fn at<T: DeserializeOwned>(path: &[String]) -> Option<&'static [&'static str]> {
    let mut found = None;
    let _ = T::deserialize(Probe { path, found: &mut found });
    found
}

struct Probe<'p> {
    path: &'p [String],
    found: &'p mut Option<&'static [&'static str]>,
}

fn end() -> Error {
    Error::custom("the walk ends here")
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(end())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if self.path.is_empty() {
            *self.found = Some(fields);
            return Err(end());
        }
        visitor.visit_map(Step { probe: self, taken: false })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.path.is_empty() { Err(end()) } else { visitor.visit_map(Step { probe: self, taken: false }) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.path.is_empty() { Err(end()) } else { visitor.visit_seq(Step { probe: self, taken: false }) }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if self.path.is_empty() { Err(end()) } else { visitor.visit_enum(Step { probe: self, taken: false }) }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple_struct
        identifier ignored_any
    }
}

/// One level down, once.
struct Step<'p> {
    probe: Probe<'p>,
    taken: bool,
}

impl Step<'_> {
    fn key(&self) -> StrDeserializer<'_, Error> {
        self.probe.path[0].as_str().into_deserializer()
    }

    fn below(&mut self) -> Probe<'_> {
        self.taken = true;
        Probe { path: &self.probe.path[1..], found: self.probe.found }
    }
}

impl<'de> MapAccess<'de> for Step<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        if self.taken { Err(end()) } else { seed.deserialize(self.key()).map(Some) }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self.below())
    }
}

impl<'de> SeqAccess<'de> for Step<'_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        if self.taken { Err(end()) } else { seed.deserialize(self.below()).map(Some) }
    }
}

impl<'de> EnumAccess<'de> for Step<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let variant = seed.deserialize(self.key())?;
        Ok((variant, self))
    }
}

impl<'de> serde::de::VariantAccess<'de> for Step<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Err(end())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self.below())
    }

    fn tuple_variant<V: Visitor<'de>>(mut self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.below().deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        mut self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.below().deserialize_struct("", fields, visitor)
    }
}
