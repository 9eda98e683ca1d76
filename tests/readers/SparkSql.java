import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;

/** Executes the statements of a file; prints "==" and the rows after each query. */
public class SparkSql {
  public static void main(String[] arguments) throws Exception {
    SparkSession session =
        SparkSession.builder()
            .master("local[1]")
            .config("spark.ui.enabled", "false")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.sql.session.timeZone", "UTC")
            .config("spark.sql.shuffle.partitions", "1")
            .getOrCreate();
    for (String statement : Files.readString(Path.of(arguments[0])).split(";\n")) {
      String text = statement.replaceAll("(?m)^--.*$", "").strip();
      if (text.isEmpty()) {
        continue;
      }
      var result = session.sql(text);
      if (text.startsWith("SELECT")) {
        System.out.println("==");
        for (Row row : result.collectAsList()) {
          System.out.println(row.mkString("\t").replace("\n", "\\n"));
        }
      }
    }
    session.stop();
  }
}
