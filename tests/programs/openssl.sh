#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# openssl, libcrypto and libssl with a probe on every k-th instruction: digests, ciphers, keys, signatures.
# Keys made under probes are used, and not compared. OPENSSL_ia32cap chooses other implementations for the same thing.
name=openssl package=openssl modules=main,libcrypto.so.*,libssl.so.*

key=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
iv=0f0e0d0c0b0a09080706050403020100

prepare()
{
	seq 1 20000 >text
	head -c 4099 text >short
	"$program" genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out rsa.pem 2>/dev/null
	"$program" genpkey -algorithm ED25519 -out ed25519.pem
	"$program" genpkey -algorithm X25519 -out x25519.pem
	"$program" ecparam -name prime256v1 -genkey -noout -out ec.pem
	for each in rsa ed25519 x25519 ec; do
		"$program" pkey -in $each.pem -pubout -out $each.pub
	done
}

digests()
{
	for digest in md5 sha1 sha256 sha512 sha3-256 blake2b512 ripemd160; do
		probed dgst "-$digest" ../input/text
	done
}

ciphers()
{
	for cipher in aes-128-cbc aes-256-ctr chacha20 camellia-256-cbc des-ede3-cbc; do
		probed enc "-$cipher" -K $key -iv $iv -in ../input/short -out "$cipher" 2>/dev/null
		probed enc -d "-$cipher" -K $key -iv $iv -in "$cipher" 2>/dev/null | cmp - ../input/short
	done
}

workload()
{
	digests
	OPENSSL_ia32cap=0 && export OPENSSL_ia32cap
	digests
	ciphers
	unset OPENSSL_ia32cap
	ciphers
	probed dgst -sha256 -hmac secret ../input/text
	probed mac -cipher aes-128-cbc -macopt hexkey:000102030405060708090a0b0c0d0e0f -in ../input/short CMAC
	probed mac -macopt hexkey:$key -in ../input/short Poly1305
	probed kdf -keylen 24 -kdfopt digest:SHA256 -kdfopt pass:secret -kdfopt salt:salt -kdfopt iter:500 PBKDF2
	probed kdf -keylen 24 -kdfopt pass:secret -kdfopt salt:salt -kdfopt n:64 -kdfopt r:8 -kdfopt p:1 SCRYPT
	probed passwd -6 -salt salt secret
	probed enc -aes-256-cbc -pbkdf2 -S 0102030405060708 -pass pass:secret -a -in ../input/short -out base64
	probed prime 170141183460469231731687303715884105727
	probed prime -hex FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF1

	probed dgst -sha256 -sign ../input/rsa.pem -out rsa.signature ../input/text
	probed dgst -sha256 -verify ../input/rsa.pub -signature rsa.signature ../input/text
	probed dgst -sha256 -verify ../input/rsa.pub -signature rsa.signature ../input/short 2>&1 |
		sed 's/^[0-9A-F]*:error/error/' # a thread's address
	probed pkeyutl -sign -rawin -inkey ../input/ed25519.pem -in ../input/short -out ed25519.signature
	probed pkeyutl -verify -rawin -pubin -inkey ../input/ed25519.pub -in ../input/short -sigfile ed25519.signature
	probed pkeyutl -derive -inkey ../input/x25519.pem -peerkey ../input/x25519.pub -out x25519.secret
	probed pkeyutl -derive -inkey ../input/ec.pem -peerkey ../input/ec.pub -out ec.secret
	probed dgst -sha384 -sign ../input/ec.pem -out random ../input/text
	probed dgst -sha384 -verify ../input/ec.pub -signature random ../input/text
	probed pkey -in ../input/rsa.pem -text -noout -check
	probed asn1parse -in ../input/rsa.pem

	probed genrsa -out random.pem 1024 2>/dev/null # before version 3, it shows how long it looks for primes
	probed pkey -in random.pem -check -noout
	probed ecparam -name secp384r1 -genkey -noout -out random2.pem
	probed pkey -in random2.pem -check -noout
	probed req -x509 -new -key ../input/rsa.pem -subj /CN=probed/O=libpatch -set_serial 7 -days 2 -out random3.pem
	probed x509 -in random3.pem -noout -subject -serial -ext basicConstraints
	probed verify -CAfile random3.pem random3.pem
	probed cms -encrypt -aes128 -in ../input/short -out random4 random3.pem
	probed cms -decrypt -in random4 -inkey ../input/rsa.pem -recip random3.pem | tr -d '\r' | cmp - ../input/short
	probed pkcs12 -export -in random3.pem -inkey ../input/rsa.pem -passout pass:secret -out random5
	probed pkcs12 -in random5 -passin pass:secret -nodes -nocerts -nomacver | grep -c PRIVATE
	rm -f random*

	probed ciphers -v
	probed list -digest-algorithms
	probed errstr 0308010C
	probed nothing
	probed version
}

quick='
128 77 allow gp probe
'
full='
16 all allow gp probe
64 3,35 forbid all probe
512 100,300 force gp probe
64 7 allow all around
64 50 allow gp toggle
'
. "$(dirname "$0")/driver.sh"
