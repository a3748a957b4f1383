package config

import (
	"net"
	"net/url"
	"strconv"
	"strings"
)

// Etcd3 is the section of an etcd cluster, version 3 of its protocol.
type Etcd3 struct {
	// Endpoints are the servers' URLs, scheme and port filled in; empty when SRV names them.
	Endpoints []string
	// SRV is a domain whose records name the servers, SRVSuffix the end of their service names.
	SRV, SRVSuffix string
	// Fixed: no other servers than these are used (use_proxies, proxy).
	Fixed bool
	// Protocol of what names none itself: http or https.
	Protocol string
	// CACert is the servers' authority; empty: the system's. Cert and Key are our own; the key
	// may be in the same file, and encrypted.
	CACert, Cert, Key string
	KeyPassword       Secret
	Username          string
	Password          Secret
}

const etcdPort = 2379

// decodeEtcd3 finds the servers as Patroni does: proxy, url, srv, hosts, host; the first
// that is given counts.
func decodeEtcd3(t *tree) Etcd3 {
	e := Etcd3{
		Protocol: strings.ToLower(str(t.get("protocol"), "http")),
		Fixed:    boolean(t.get("use_proxies"), false),
		CACert:   str(t.get("cacert"), ""), Cert: str(t.get("cert"), ""), Key: str(t.get("key"), ""),
		KeyPassword: secret(t.get("key_password")),
		Username:    str(t.get("username"), ""), Password: secret(t.get("password")),
	}
	from, names := etcdNames(t)
	switch from {
	case "proxy":
		e.Fixed = true
	case "srv":
		e.SRV, e.SRVSuffix = names[0], str(t.get("srv_suffix"), "")
		return e
	}
	for _, name := range names {
		endpoint, user, ok := readEndpoint(name, e.Protocol)
		if !ok {
			continue // the validator says so
		}
		e.Endpoints = append(e.Endpoints, endpoint)
		if user != nil && e.Username == "" {
			e.Username = user.Username()
			password, _ := user.Password()
			e.Password = NewSecret(password)
		}
	}
	return e
}

// etcdNames is the key that says where the servers are, and what it says.
func etcdNames(t *tree) (from string, names []string) {
	for _, k := range []string{"proxy", "url", "srv"} {
		if s := str(t.get(k), ""); s != "" {
			return k, []string{s}
		}
	}
	if names = stringsOf(t.get("hosts")); len(names) > 0 {
		return "hosts", names
	}
	if s := str(t.get("host"), ""); s != "" {
		return "host", []string{s}
	}
	return "", nil
}

// readEndpoint takes host, host:port or a URL.
func readEndpoint(s, protocol string) (endpoint string, user *url.Userinfo, ok bool) {
	s = strings.TrimSpace(s)
	if !strings.Contains(s, "://") {
		a, ok := readAddress(s, etcdPort)
		if !ok || a.Host == "" {
			return "", nil, false
		}
		return protocol + "://" + a.String(), nil, true
	}
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return "", nil, false
	}
	port := u.Port()
	if port == "" {
		port = strconv.Itoa(etcdPort)
	}
	return u.Scheme + "://" + net.JoinHostPort(u.Hostname(), port), u.User, true
}

// etcd3 checks the section of the store that is used.
func (v *validator) etcd3() {
	section := v.root.get("etcd3")
	from, names := etcdNames(section)
	if from == "" {
		v.add(Error, "etcd3", "names no server", "give host, hosts, url, srv or proxy, for example `hosts: [10.0.0.1:2379, 10.0.0.2:2379]`")
	}
	if p := v.c.Etcd3.Protocol; p != "http" && p != "https" {
		v.add(Error, "etcd3.protocol", "is neither http nor https", "use https where etcd speaks TLS")
	}
	secured := from == "srv"
	for _, name := range names {
		if from == "srv" {
			continue
		}
		endpoint, _, ok := readEndpoint(name, v.c.Etcd3.Protocol)
		if !ok {
			at := "etcd3." + from
			if strings.Contains(name, "@") {
				at = "etcd3" // the value itself may hold a password
			}
			v.add(Error, at, "holds "+strconv.Quote(redactURL(name))+", which is no address", "write host:port, or http://host:port")
		}
		secured = secured || strings.HasPrefix(endpoint, "https:")
	}
	e := v.c.Etcd3
	if !secured && (e.CACert != "" || e.Cert != "") {
		v.add(Warning, "etcd3.protocol", "is http: certificates have no effect, and everything is plain text", "set protocol: https")
	}
	if e.Cert == "" && e.Key != "" {
		v.add(Error, "etcd3.key", "is set without cert", "give cert too")
	}
	if e.Username != "" && e.Password.Reveal() == "" {
		v.add(Error, "etcd3.password", "is not defined, and username is", "give both")
	}
}

// redactURL leaves out what stands before an @.
func redactURL(s string) string {
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		return s[i+1:]
	}
	return s
}
