package cognito

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/turumba/turumba/kit/config"
)

// Settings name a user pool and a client of it.
type Settings struct {
	// Region and UserPoolID name the pool.
	Region     string `env:"COGNITO_REGION" help:"AWS region of the user pool"`
	UserPoolID string `env:"COGNITO_USER_POOL_ID" help:"the user pool"`
	// ClientID is the app client; ClientSecret is its secret, if it has one.
	ClientID     string        `env:"COGNITO_CLIENT_ID" help:"the app client that people log in with"`
	ClientSecret config.Secret `env:"COGNITO_CLIENT_SECRET" help:"secret of the app client, if it has one"`
	// Endpoint is where Cognito is reached instead of AWS.
	Endpoint string `env:"COGNITO_ENDPOINT" help:"URL of Cognito; default: AWS"`
	// AccessKeyID, SecretAccessKey and SessionToken sign the calls that no user can make.
	AccessKeyID     string        `env:"AWS_ACCESS_KEY_ID" help:"AWS credentials that may call AdminGetUser, AdminDeleteUser and AdminUserGlobalSignOut on the pool"`
	SecretAccessKey config.Secret `env:"AWS_SECRET_ACCESS_KEY" help:"secret of AWS_ACCESS_KEY_ID"`
	SessionToken    config.Secret `env:"AWS_SESSION_TOKEN" help:"session token of temporary AWS credentials"`
}

var (
	region = regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-[0-9]$`)
	poolID = regexp.MustCompile(`^[\w-]+_[0-9a-zA-Z]+$`)
)

// Check reports what is missing or wrong; only an installation with Cognito needs it.
func (s Settings) Check() error {
	var problems []error
	for _, required := range []struct{ name, value string }{
		{"COGNITO_REGION", s.Region},
		{"COGNITO_USER_POOL_ID", s.UserPoolID},
		{"COGNITO_CLIENT_ID", s.ClientID},
		{"AWS_ACCESS_KEY_ID", s.AccessKeyID},
		{"AWS_SECRET_ACCESS_KEY", s.SecretAccessKey.Reveal()},
	} {
		if required.value == "" {
			problems = append(problems, fmt.Errorf("%s: is required with IDENTITY_PROVIDER=cognito", required.name))
		}
	}
	if s.Region != "" && !region.MatchString(s.Region) {
		problems = append(problems, errors.New("COGNITO_REGION: expected a region such as eu-west-1"))
	}
	if s.UserPoolID != "" && !poolID.MatchString(s.UserPoolID) {
		problems = append(problems, errors.New("COGNITO_USER_POOL_ID: expected an id such as eu-west-1_a1B2c3D4e"))
	}
	if u, err := url.Parse(s.Endpoint); s.Endpoint != "" && (err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http")) {
		problems = append(problems, errors.New("COGNITO_ENDPOINT: expected an https:// or http:// URL"))
	}
	return errors.Join(problems...)
}

// Issuer is the iss of the pool's tokens.
func (s Settings) Issuer() string {
	if s.Endpoint != "" {
		return strings.TrimSuffix(s.Endpoint, "/") + "/" + s.UserPoolID
	}
	return "https://cognito-idp." + s.Region + ".amazonaws.com/" + s.UserPoolID
}
