package stores

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha1" //nolint:gosec // RFC 8018's default, still written by older tools
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
)

// The structures of an encrypted key: RFC 5958, encrypted as RFC 8018 (PBES2) says.
type (
	encryptedKey struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	pbes2 struct {
		Derivation, Scheme pkix.AlgorithmIdentifier
	}
	pbkdf2Params struct {
		Salt       []byte
		Iterations int
		KeyLength  int                      `asn1:"optional"`
		PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
	}
)

// maxIterations keeps a broken file from keeping a connection waiting.
const maxIterations = 10_000_000

var errWrongPassword = errors.New("decrypt: the password is wrong, or the key is damaged")

// decryptPKCS8 decrypts what openssl and its kin write by default: PBKDF2 with HMAC-SHA, and
// AES in CBC mode.
func decryptPKCS8(der []byte, password string) ([]byte, error) {
	var (
		key   encryptedKey
		how   pbes2
		kdf   pbkdf2Params
		vec   []byte
		plain asn1.RawValue
	)
	if _, err := asn1.Unmarshal(der, &key); err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	if !key.Algorithm.Algorithm.Equal(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}) {
		return nil, fmt.Errorf("decrypt: encryption %v is not known; write the key anew with `openssl pkcs8 -topk8`", key.Algorithm.Algorithm)
	}
	if _, err := asn1.Unmarshal(key.Algorithm.Parameters.FullBytes, &how); err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	if !how.Derivation.Algorithm.Equal(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}) {
		return nil, fmt.Errorf("decrypt: key derivation %v is not known; PBKDF2 is", how.Derivation.Algorithm)
	}
	if _, err := asn1.Unmarshal(how.Derivation.Parameters.FullBytes, &kdf); err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	if _, err := asn1.Unmarshal(how.Scheme.Parameters.FullBytes, &vec); err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	size, err := aesSize(how.Scheme.Algorithm)
	if err != nil {
		return nil, err
	}
	prf, err := prfOf(kdf.PRF.Algorithm)
	if err != nil {
		return nil, err
	}
	if kdf.Iterations < 1 || kdf.Iterations > maxIterations || len(vec) != aes.BlockSize ||
		len(key.Data) == 0 || len(key.Data)%aes.BlockSize != 0 {
		return nil, errors.New("decrypt: the key is damaged")
	}
	secret, err := pbkdf2.Key(prf, password, kdf.Salt, kdf.Iterations, size)
	if err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	out := make([]byte, len(key.Data))
	cipher.NewCBCDecrypter(block, vec).CryptBlocks(out, key.Data)
	pad := int(out[len(out)-1])
	if pad < 1 || pad > aes.BlockSize {
		return nil, errWrongPassword
	}
	out = out[:len(out)-pad]
	if rest, err := asn1.Unmarshal(out, &plain); err != nil || len(rest) > 0 {
		return nil, errWrongPassword
	}
	return out, nil
}

// aesSize is the key length of AES in CBC mode.
func aesSize(scheme asn1.ObjectIdentifier) (int, error) {
	for last, size := range map[int]int{2: 16, 22: 24, 42: 32} {
		if scheme.Equal(asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, last}) {
			return size, nil
		}
	}
	return 0, fmt.Errorf("decrypt: cipher %v is not known; AES-CBC is", scheme)
}

// prfOf is HMAC's hash.
func prfOf(id asn1.ObjectIdentifier) (func() hash.Hash, error) {
	if len(id) == 0 {
		return sha1.New, nil
	}
	for last, h := range map[int]func() hash.Hash{7: sha1.New, 9: sha256.New, 10: sha512.New384, 11: sha512.New} {
		if id.Equal(asn1.ObjectIdentifier{1, 2, 840, 113549, 2, last}) {
			return h, nil
		}
	}
	return nil, fmt.Errorf("decrypt: hash %v is not known", id)
}
