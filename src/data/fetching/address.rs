//! Which network addresses may be spoken to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// What of private networks may be spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PrivateNetworks {
    #[default]
    None,
    /// These addresses alone.
    These(Vec<IpAddr>),
    /// Everything, by the environment's proxy too.
    All,
}

impl PrivateNetworks {
    fn permit(&self, address: IpAddr) -> bool {
        match self {
            Self::None => false,
            Self::These(addresses) => addresses.contains(&address),
            Self::All => true,
        }
    }
}

/// A name or address that leads into a private network.
#[derive(Debug, thiserror::Error)]
#[error(
    "{host} is {address}, an address of a private or reserved network; --allow-private or --allow-address permits it"
)]
pub struct PrivateAddress {
    host: String,
    address: IpAddr,
}

/// Looks names up and gives out public addresses only. The connection is made to what is given out here, so a name
/// that changes its mind between check and use gains nothing.
#[derive(Debug)]
pub struct PublicResolver {
    inner: DefaultResolver,
    private: PrivateNetworks,
}

impl PublicResolver {
    pub fn new(private: PrivateNetworks) -> Self {
        Self {
            inner: DefaultResolver::default(),
            private,
        }
    }
}

impl Resolver for PublicResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        // One private address is enough to refuse: an honest host has none.
        let refused = |address: IpAddr| !is_public(address) && !self.private.permit(address);
        match found.iter().find(|address| refused(address.ip())) {
            None => Ok(found),
            Some(address) => Err(ureq::Error::Other(Box::new(PrivateAddress {
                host: uri.host().unwrap_or_default().to_string(),
                address: address.ip(),
            }))),
        }
    }
}

/// Whether an address belongs to the public internet, by IANA's registries of special addresses.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let reserved = matches!(
        (a, b, c),
        (0 | 10 | 127, _, _)                  // this network, private, loopback
            | (100, 64..=127, _)              // carriers' private space
            | (169, 254, _)                   // link-local, clouds' metadata
            | (172, 16..=31, _)               // private
            | (192, 0, 0 | 2)                 // protocol assignments, documentation
            | (192, 88, 99)                   // relays to IPv6
            | (192, 168, _)                   // private
            | (198, 18 | 19, _)               // benchmarks
            | (198, 51, 100) | (203, 0, 113)  // documentation
            | (224..=255, _, _) // multicast, reserved, broadcast
    );
    !reserved
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // Addresses that carry one of the older kind reach that one.
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            embedded(high, low)
        }
        [0x2002, high, low, ..] => embedded(high, low),
        // Of 2000::/3, where all public addresses lie: protocol assignments with Teredo, documentation.
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => false,
        [0x3fff, second, ..] if second < 0x1000 => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_public() {
        let public = [
            "8.8.8.8",
            "1.1.1.1",
            "100.63.0.1",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
            "2a00:1450:4001::1",
        ];
        let private = [
            "0.0.0.0",
            "10.0.0.1",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "100.64.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::1",
            "2002:a00:1::",
            "2001::1",
            "2001:db8::1",
            "fec0::1",
            "64:ff9b:1::1",
            "100::1",
            "::7f00:1",
        ];
        for text in public {
            assert!(is_public(text.parse().expect("an address")), "{text}");
        }
        for text in private {
            assert!(!is_public(text.parse().expect("an address")), "{text}");
        }
    }
}
