"""A real Kafka broker: one node in KRaft mode from the jars that `tools/fetch-kafka` fetched, on free ports of the loopback interface."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from support.certificates import Authority
from support.server import free_port, wait_for

ROOT = Path(__file__).parents[2]
_SCRAM_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
USER, PASSWORD = "tallystick", "change-me"


class KafkaBroker:
    """``address`` speaks in the clear, ``secure_address`` TLS with SASL; ``directory`` has `ca.pem`, `client.pem` and `client.key`."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        plain, secure, self._controller = free_port(), free_port(), free_port()
        self.address, self.secure_address = f"127.0.0.1:{plain}", f"127.0.0.1:{secure}"
        self.config = directory / "server.properties"
        authority = Authority(directory)
        authority.issue("server", "127.0.0.1")
        authority.issue("client", "tallystick")
        keystore = directory / "keystore.pem"
        keystore.write_bytes((directory / "server.key").read_bytes() + (directory / "server.pem").read_bytes())
        login = f'org.apache.kafka.common.security.%s required {{}} user_{USER}="{PASSWORD}";'
        self.config.write_text(
            "\n".join(
                (
                    "process.roles=broker,controller",
                    "node.id=1",
                    f"controller.quorum.voters=1@127.0.0.1:{self._controller}",
                    "controller.listener.names=CONTROLLER",
                    f"listeners=PLAIN://{self.address},SECURE://{self.secure_address},CONTROLLER://127.0.0.1:{self._controller}",
                    "listener.security.protocol.map=PLAIN:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT",
                    "inter.broker.listener.name=PLAIN",
                    "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512",
                    "listener.name.secure.plain.sasl.jaas.config=" + (login % "plain.PlainLoginModule").replace("{} ", ""),
                    "listener.name.secure.scram-sha-512.sasl.jaas.config=" + _SCRAM_LOGIN,
                    "ssl.keystore.type=PEM",
                    f"ssl.keystore.location={keystore}",
                    "ssl.truststore.type=PEM",
                    f"ssl.truststore.location={directory / 'ca.pem'}",
                    "ssl.client.auth=requested",
                    f"log.dirs={directory / 'log'}",
                    "auto.create.topics.enable=false",
                    "offsets.topic.replication.factor=1",
                    "offsets.topic.num.partitions=1",
                    "transaction.state.log.replication.factor=1",
                    "transaction.state.log.min.isr=1",
                    "transaction.state.log.num.partitions=1",
                    "group.initial.rebalance.delay.ms=0",
                    "group.min.session.timeout.ms=1000",
                    "log.cleaner.enable=false",
                    "num.network.threads=2",
                    "num.io.threads=2",
                )
            )
            + "\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def format(self) -> KafkaBroker:
        """Make the log directory, with the login for SCRAM."""
        scram = f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"
        arguments = ["format", "--cluster-id", str(uuid.uuid4()), "--config", str(self.config), "--add-scram", scram]
        done = subprocess.run([*_java("kafka.tools.StorageTool"), *arguments], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return self

    def start(self) -> KafkaBroker:
        with (self.directory / "broker.log").open("ab") as log:
            command = [*_java("kafka.Kafka"), str(self.config)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.directory)
        wait_for(self._is_ready, "the Kafka broker to be ready", 90, 0.2)
        return self

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(20)

    @cached_property
    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    def new_topic(self, partitions: int = 1, **config: str) -> str:
        """A fresh topic's name."""
        name = f"t-{uuid.uuid4().hex[:10]}"
        self.admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(20)
        return name

    def grow(self, topic: str, partitions: int) -> None:
        self.admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(20)

    def delete_before(self, topic: str, offset: int, partition: int = 0) -> None:
        """As retention does."""
        place = TopicPartition(topic, partition, offset)
        self.admin.delete_records([place])[place].result(20)

    def send(self, topic: str, bodies: Iterable[bytes | None], partition: int = 0, transaction: str | None = None) -> None:
        """Records that the broker has when this returns."""
        options = {"transactional.id": transaction} if transaction else {}
        producer = Producer({"bootstrap.servers": self.address, "linger.ms": 5, **options})
        if transaction:
            producer.init_transactions(20)
            producer.begin_transaction()
        for body in bodies:
            producer.produce(topic, value=body, partition=partition)
        if transaction:
            producer.commit_transaction(20)
        assert producer.flush(30) == 0

    def committed(self, group: str, topic: str, partition: int = 0) -> int:
        """The group's offset, -1 without one."""
        place = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, partition)])
        try:
            found = self.admin.list_consumer_group_offsets([place])[group].result(20)
        except KafkaException:
            return -1
        return max(-1, found.topic_partitions[0].offset)

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.directory / "broker.log").read_text()[-3000:]
        try:
            return bool(self.admin.list_topics(timeout=2).brokers)
        except KafkaException:
            return False


def _java(main: str) -> list[str]:
    """The command for one of Kafka's programs, with a small heap."""
    found = subprocess.run([ROOT / "tools" / "fetch-kafka", "--print"], capture_output=True, text=True, check=True, env=os.environ)
    jars = Path(found.stdout.strip())
    assert jars.is_dir(), f"{jars} is not there: run tools/install-test-parts"
    return ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*", main]
